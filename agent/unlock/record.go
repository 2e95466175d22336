package unlock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"bailey/agent/unlock/token"
	"bailey/internal/durable"
)

// FileName is the record's name in the agent's state.
const FileName = "operator-tokens.json"

const (
	recordVersion = 1
	maxRecord     = 4 << 20
	// maxUsed is how many used tokens are remembered. Only an operator can fill it; then the expired ones go.
	maxUsed = 4096
)

// record is what must survive: the tokens that were used, the floor of time, and what is open.
type record struct {
	Version   int     `json:"version"`
	BootID    string  `json:"boot_id"` // what Host, FloorBoot and Open count from
	Host      string  `json:"host,omitempty"`
	Floor     int64   `json:"floor"` // seconds since the epoch; 0: none
	FloorBoot uint64  `json:"floor_boot"`
	Used      []used  `json:"used"`
	Open      *opened `json:"open,omitempty"`
}

// used is a token that was accepted.
type used struct {
	Nonce   string `json:"nonce"`
	Expires int64  `json:"expires"` // seconds since the epoch
}

// opened is what a token opened in this boot.
type opened struct {
	Scopes  []string `json:"scopes"`
	Until   uint64   `json:"until"`   // nanoseconds since boot
	Expires int64    `json:"expires"` // the same by the wall clock, seconds since the epoch: to be shown
	Key     string   `json:"key"`
	Name    string   `json:"name,omitempty"` // of the key
	Nonce   string   `json:"nonce"`
}

// read returns the record at path; one that is not there is empty.
func read(path string) (record, error) {
	r := record{Version: recordVersion}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read the used tokens: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err == nil && len(text) > maxRecord {
		err = fmt.Errorf("it has more than %d bytes", maxRecord)
	}
	if err == nil {
		r, err = parseRecord(text)
	}
	if err != nil {
		return record{}, fmt.Errorf("read the used tokens in %s: %w", path, err)
	}
	return r, nil
}

func parseRecord(text []byte) (record, error) {
	var r record
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return record{}, err
	}
	if r.Version != recordVersion {
		return record{}, fmt.Errorf("it is of version %d, known is %d", r.Version, recordVersion)
	}
	for _, u := range r.Used {
		if _, err := token.ParseNonce(u.Nonce); err != nil {
			return record{}, err
		}
	}
	if r.Host != "" {
		if _, err := token.ParseHost(r.Host); err != nil {
			return record{}, err
		}
	}
	if r.Open != nil {
		if _, err := token.ParseScopes(r.Open.Scopes); err != nil {
			return record{}, err
		}
	}
	return r, nil
}

// write puts r at path: after a power cut there is the old one or the new one, and when it returns there is the new one.
func (r record) write(path string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the used tokens: %w", err)
	}
	if err := durable.Replace(path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the used tokens: %w", err)
	}
	return nil
}

// has reports whether a token was used.
func (r record) has(n token.Nonce) bool {
	for _, u := range r.Used {
		if u.Nonce == n.String() {
			return true
		}
	}
	return false
}

// with returns the record with one more used token, without the oldest expired ones where there are too many. It reports false
// when there is no room.
func (r record) with(u used, now time.Time) (record, bool) {
	kept := append([]used{}, r.Used...)
	for i := 0; len(kept) >= maxUsed && i < len(kept); {
		if kept[i].Expires < now.Unix() {
			kept = append(kept[:i], kept[i+1:]...)
			continue
		}
		i++
	}
	if len(kept) >= maxUsed {
		return r, false
	}
	r.Used = append(kept, u)
	return r, true
}
