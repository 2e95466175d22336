package client

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"bailey/internal/durable"
	"bailey/update/release"
)

// What lies in the client's directory.
const (
	streamsDir   = "streams"   // ROLE.json: a Record
	downloadsDir = "downloads" // bundles on their way
	stagedDir    = "staged"    // ROLE: what was unpacked
	basesDir     = "bases"     // ROLE: the files of the installed bundle, which deltas begin at
	historyFile  = "history.jsonl"
	maxRecord    = 4 << 20
	maxHistory   = 1 << 20
)

// Record is what is known of a stream.
type Record struct {
	Installed string               `json:"installed,omitempty"` // version that came through here last, or that was found
	Epoch     int64                `json:"epoch,omitempty"`     // security floor: the highest that was committed
	Current   *Update              `json:"current,omitempty"`   // on its way, or the newest that ended
	Last      *Update              `json:"last,omitempty"`      // the newest that was committed
	Bad       map[string]string    `json:"bad,omitempty"`       // versions that are not tried again, and why
	Seen      map[string]time.Time `json:"seen,omitempty"`      // when a version was offered first
	Failures  []time.Time          `json:"failures,omitempty"`  // of updates, lately

	Pinned string `json:"pinned,omitempty"` // the one version that the operator wants
	Paused bool   `json:"paused,omitempty"` // the operator wants no new release in force
	Frozen string `json:"frozen,omitempty"` // why nothing new is tried until the operator has looked

	Problem string `json:"-"` // of the disk
}

func (c *Client) path(id release.Stream) string {
	return filepath.Join(c.cfg.Dir, streamsDir, id.Role()+".json")
}

func (c *Client) read(id release.Stream) (Record, error) {
	var r Record
	text, err := os.ReadFile(c.path(id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return r, fmt.Errorf("read what is known of %s: %w", id, err)
	default:
		if r, err = parseRecord(text); err != nil {
			return r, fmt.Errorf("read what is known of %s: %w; remove %s to begin anew", id, err, c.path(id))
		}
	}
	if r.Bad == nil {
		r.Bad = map[string]string{}
	}
	if r.Seen == nil {
		r.Seen = map[string]time.Time{}
	}
	return r, nil
}

// woken sets right what a clock wrote that was set since, or that went on while the machine was off: nothing is waited for longer than was meant,
// and what is watched is not done with because nobody looked.
func (r *Record) woken(now time.Time) {
	u := r.Current
	if u == nil {
		return
	}
	if u.Next.Sub(now) > longestWait {
		u.Next = now
	}
	window := u.Until.Sub(u.Changed)
	if left := u.Until.Sub(now); u.State == Watch && (left <= 0 || left > window) {
		u.Until = now.Add(window)
	}
}

// parseRecord reads what save wrote.
func parseRecord(text []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(text, &r); err != nil {
		return r, err
	}
	for _, u := range []*Update{r.Current, r.Last} {
		if u == nil {
			continue
		}
		if _, known := moves[u.State]; !known {
			return r, fmt.Errorf("no update is ever in state %q", u.State)
		}
	}
	return r, nil
}

// save puts the record on the disk. A disk that refuses leaves the update where the disk says it is: the step is done again. Caller holds s.mu.
func (c *Client) save(s *stream) {
	s.record.Problem = ""
	text, err := json.MarshalIndent(&s.record, "", " ")
	if err == nil {
		err = durable.Replace(c.path(s.id), append(text, '\n'), 0o600)
	}
	if err != nil {
		s.record.Problem = fmt.Sprintf("what is known of %s cannot be written: %v", s.id, err)
	}
}

// Move is one move of an update.
type Move struct {
	Time    time.Time `json:"time"`
	Stream  string    `json:"stream"`
	Version string    `json:"version"`
	From    State     `json:"from,omitempty"` // empty: it begins
	To      State     `json:"to"`
	Reason  string    `json:"reason,omitempty"`
}

// history is a file of moves and the one before it, together at most twice maxHistory bytes.
type history struct {
	path string
	mu   sync.Mutex
}

func (h *history) add(m Move) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write the history of updates: %w", err)
	}
	if st, err := os.Stat(h.path); err == nil && st.Size()+int64(len(line)) > maxHistory {
		if err := os.Rename(h.path, h.path+".1"); err != nil {
			return fmt.Errorf("write the history of updates: %w", err)
		}
	}
	f, err := os.OpenFile(h.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("write the history of updates: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the history of updates: %w", err)
	}
	return nil
}

// History returns the newest moves of all streams, the oldest first, at most limit. A line that a power cut tore is passed over.
func (c *Client) History(limit int) ([]Move, error) {
	c.history.mu.Lock()
	defer c.history.mu.Unlock()
	var out []Move
	for _, path := range []string{c.history.path + ".1", c.history.path} {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the history of updates: %w", err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			var m Move
			if json.Unmarshal(lines.Bytes(), &m) == nil && m.To != "" {
				out = append(out, m)
			}
		}
	}
	return out[max(0, len(out)-limit):], nil
}

// jitter spreads retries of many machines.
func jitter(d time.Duration) time.Duration { return d + time.Duration(rand.Int64N(int64(d)/5+1)) }
