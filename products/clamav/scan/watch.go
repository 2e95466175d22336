package scan

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"bailey/products/clamav/clamd"
	"bailey/sdk"

	"golang.org/x/sys/unix"
)

// pingTimeout is how long clamd may take to say PONG: it answers from a thread of its own, also while it loads signatures.
const pingTimeout = time.Second

// watcher knows whether clamd answers and whether its signatures are those of before. Safe for concurrent use.
type watcher struct {
	client   *clamd.Client
	settings Settings
	kick     chan struct{} // look now; capacity 1

	mu        sync.Mutex
	gen       uint64    // counts changes of the signatures
	unsettled time.Time // until then clamd may change its signatures without telling
	down      bool
}

func newWatcher(client *clamd.Client, s Settings) *watcher {
	return &watcher{client: client, settings: s, kick: make(chan struct{}, 1)}
}

// generation returns the number of the present signatures, and whether clamd is sure to have them.
func (w *watcher) generation() (n uint64, certain bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gen, !w.down && !time.Now().Before(w.unsettled)
}

// away reports whether clamd is known not to answer.
func (w *watcher) away() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down
}

// suspect has the watcher look at clamd now.
func (w *watcher) suspect() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// observation is what can be seen of clamd from outside.
type observation struct {
	version  string
	socket   [3]uint64 // device, inode, change time
	database uint64    // a sum over the names, sizes and times of the signature files
}

// report tells of a change; forget says that cached allows must go.
type report func(rule, title string, severity sdk.Severity, forget bool)

func (w *watcher) run(ctx context.Context, tell report) {
	var last observation
	first := true
	tick := time.NewTicker(w.settings.Poll)
	defer tick.Stop()
	for {
		now, err := w.observe(ctx)
		if ctx.Err() != nil {
			return
		}
		wasDown := w.set(err != nil)
		switch {
		case err != nil && !wasDown:
			// What was clean stays clean, and cached: asking again could only get answers without a scan.
			tell(ruleAway, "clamd does not answer, files are not scanned: "+err.Error(), sdk.High, false)
		case err == nil && wasDown:
			w.renew(time.Time{})
			tell(ruleBack, "clamd answers again: "+now.version, sdk.Info, true)
		case err == nil && !first && now != last:
			w.compare(last, now, tell)
		}
		if err == nil {
			last, first = now, false
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-w.kick:
		}
	}
}

func (w *watcher) observe(ctx context.Context) (observation, error) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	version, err := w.client.Version(ctx)
	if err != nil {
		return observation{}, err
	}
	now := observation{version: version, database: directoryStamp(w.settings.Database)}
	var st unix.Stat_t
	if unix.Stat(w.settings.Socket, &st) == nil {
		now.socket = [3]uint64{st.Dev, st.Ino, uint64(st.Ctim.Nano())}
	}
	return now, nil
}

// compare judges a difference. clamd tells of official signatures by its version; of an operator's own it tells nothing,
// and loads them when it is told to or at its next self-check: until then a clean file may be clean by the old ones.
func (w *watcher) compare(last, now observation, tell report) {
	switch {
	case now.version != last.version:
		w.renew(time.Time{})
		tell(ruleSignatures, "clamd has other signatures: "+now.version, sdk.Info, true)
	case now.socket != last.socket:
		w.renew(time.Time{})
		tell(ruleSignatures, "clamd was started anew: "+now.version, sdk.Info, true)
	default:
		w.renew(time.Now().Add(w.settings.Settle))
		tell(ruleSignatures, "the signature files have changed; clean files are scanned each time until clamd is sure to have loaded them", sdk.Info, true)
	}
}

// renew begins a new generation of signatures, uncertain until a time.
func (w *watcher) renew(until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gen++
	w.unsettled = until
}

func (w *watcher) set(down bool) (was bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was, w.down = w.down, down
	return was
}

// directoryStamp sums up the files of a directory; 0 where it cannot be read.
func directoryStamp(dir string) uint64 {
	if dir == "" {
		return 0
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	stamp := uint64(14695981039346656037) // FNV-1a
	add := func(v uint64) { stamp = (stamp ^ v) * 1099511628211 }
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, e.Name()), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		for _, b := range []byte(e.Name()) {
			add(uint64(b))
		}
		add(st.Ino)
		add(uint64(st.Size))
		add(uint64(st.Mtim.Nano()))
	}
	return stamp
}
