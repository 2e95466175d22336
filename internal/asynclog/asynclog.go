// Package asynclog is an io.Writer between a logger and a file that may stall (a pipe to a log daemon that itself waits for
// the agent's verdict). It is not a logger: it neither formats nor filters.
//
// Invariant: Write never waits for the file. Lines that do not fit are dropped, counted, and announced in the file when it
// takes lines again.
package asynclog

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// DefaultLimit is how many bytes of lines a Writer holds.
const DefaultLimit = 1 << 20

// Writer queues what is written and hands it to its file in a goroutine of its own. Safe for concurrent use.
type Writer struct {
	out   io.Writer
	limit int

	mu      sync.Mutex
	queue   [][]byte
	size    int
	dropped uint64 // in all
	untold  uint64 // dropped and not yet announced
	closed  bool
	wake    chan struct{} // holds one token when there is something to do
	done    chan struct{} // closed when the goroutine has ended
}

// New returns a Writer to out that holds at most limit bytes; 0 means DefaultLimit. Its goroutine ends after Close, or when
// a write that stalls for ever does.
func New(out io.Writer, limit int) *Writer {
	if limit == 0 {
		limit = DefaultLimit
	}
	w := &Writer{out: out, limit: limit, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write queues a copy of line, or drops and counts it. It always reports success: a logger can do nothing about a loss.
func (w *Writer) Write(line []byte) (int, error) {
	w.mu.Lock()
	if w.closed || w.size+len(line) > w.limit {
		w.dropped++
		w.untold++
	} else {
		w.queue = append(w.queue, append([]byte(nil), line...))
		w.size += len(line)
	}
	w.mu.Unlock()
	w.signal()
	return len(line), nil
}

// Dropped returns how many lines were dropped so far.
func (w *Writer) Dropped() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// Close stops taking lines and waits until those held are written or ctx is done. Lines that come later are dropped.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush the log: %w", ctx.Err())
	}
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns the lines held, and an announcement of the lines dropped after them.
func (w *Writer) take() (lines [][]byte, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines, w.queue, w.size = w.queue, nil, 0
	if w.untold > 0 {
		lines = append(lines, fmt.Appendf(nil, "level=WARN msg=\"log lines were dropped because the log's reader is too slow\" count=%d\n", w.untold))
		w.untold = 0
	}
	return lines, w.closed
}

func (w *Writer) run() {
	defer close(w.done)
	for range w.wake {
		lines, closed := w.take()
		for _, line := range lines {
			// A file that fails (a closed pipe) loses the line; there is nobody left to tell.
			_, _ = w.out.Write(line)
		}
		if closed {
			return
		}
	}
}
