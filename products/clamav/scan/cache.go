package scan

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"bailey/products/clamav/clamd"

	"golang.org/x/sys/unix"
)

// identity is one state of one file under one state of the signatures.
type identity struct {
	dev, ino    uint64
	ctime, size int64
	generation  uint64
}

// result is what clamd said. signature is empty for a clean file.
type result struct {
	signature string
	err       error
}

// flight is one scan that somebody may wait for.
type flight struct {
	done chan struct{}
	result
}

// maxResults bounds what is remembered: about 1 MB.
const maxResults = 8192

var (
	errBusy    = errors.New("all scans that may run at once are running")
	errAway    = errors.New("clamd does not answer")
	errChanged = errors.New("the file changed while it was scanned")
	errGivenUp = errors.New("the scan took longer than scan_timeout")
)

// scanner runs scans, one for each file at a time, and remembers their results. Safe for concurrent use.
type scanner struct {
	client  *clamd.Client
	slots   chan struct{}
	timeout time.Duration
	running sync.WaitGroup
	stop    context.Context

	scans atomic.Uint64

	mu       sync.Mutex
	results  map[identity]string
	order    []identity
	next     int
	inflight map[identity]*flight
}

func newScanner(ctx context.Context, client *clamd.Client, s Settings) *scanner {
	return &scanner{
		client: client, slots: make(chan struct{}, s.Scans), timeout: s.Timeout, stop: ctx,
		results: make(map[identity]string), order: make([]identity, maxResults), inflight: make(map[identity]*flight),
	}
}

func identify(fd int, generation uint64) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return identity{}, err
	}
	return identity{st.Dev, st.Ino, st.Ctim.Nano(), st.Size, generation}, nil
}

// known returns a remembered result.
func (s *scanner) known(id identity) (signature string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	signature, ok = s.results[id]
	return signature, ok
}

// scan returns what clamd says. When ctx ends first, the scan goes on with a descriptor of its own, and the next question
// about the file finds its result.
func (s *scanner) scan(ctx context.Context, fd int, id identity) (string, error) {
	s.mu.Lock()
	if signature, ok := s.results[id]; ok {
		s.mu.Unlock()
		return signature, nil
	}
	f := s.inflight[id]
	s.mu.Unlock()
	if f == nil {
		var err error
		if f, err = s.begin(ctx, fd, id); err != nil {
			return "", err
		}
	}
	select {
	case <-f.done:
		return f.signature, f.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func (s *scanner) begin(ctx context.Context, fd int, id identity) (*flight, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, errBusy
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		<-s.slots
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.inflight[id]; f != nil { // another one was faster
		_ = unix.Close(own) // read-only: closing cannot lose anything
		<-s.slots
		return f, nil
	}
	f := &flight{done: make(chan struct{})}
	s.inflight[id] = f
	s.running.Go(func() { s.run(own, id, f) })
	return f, nil
}

func (s *scanner) run(fd int, id identity, f *flight) {
	ctx, cancel := context.WithTimeoutCause(s.stop, s.timeout, errGivenUp)
	defer cancel()
	s.scans.Add(1)
	f.signature, f.err = s.client.Scan(ctx, fd)
	if now, err := identify(fd, id.generation); f.err == nil && (err != nil || now != id) {
		f.err = errChanged
	}
	_ = unix.Close(fd) // as above
	<-s.slots
	s.mu.Lock()
	delete(s.inflight, id)
	if f.err == nil {
		s.remember(id, f.signature)
	}
	s.mu.Unlock()
	close(f.done)
}

// remember replaces the oldest result. Called with mu held.
func (s *scanner) remember(id identity, signature string) {
	if _, ok := s.results[id]; !ok {
		delete(s.results, s.order[s.next])
		s.order[s.next] = id
		s.next = (s.next + 1) % len(s.order)
	}
	s.results[id] = signature
}
