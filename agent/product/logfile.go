package product

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// How fast a product may log. What is above is read, counted and thrown away, and read no faster than floodPace: the rest
// of a flood waits in the product's own pipe.
const (
	logRate   = 256 << 10 // bytes a second
	logBurst  = 1 << 20   // bytes
	logLine   = 4 << 10   // longer lines are cut into several
	floodPace = 4 << 20   // bytes a second
)

// logFile is one product's output on disk: a file and the one before it, together at most max bytes. Safe for concurrent
// use.
type logFile struct {
	path string

	mu         sync.Mutex
	max        int64
	f          *os.File // opened by the first line
	size       int64
	generation int           // counts rotations
	changed    chan struct{} // closed and replaced at each line
	tokens     float64
	filled     time.Time
	dropped    uint64 // lines, ever
	unsaid     uint64 // of them, not yet mentioned in the log
}

func newLogFile(path string, limit int64) *logFile {
	return &logFile{path: path, max: limit, changed: make(chan struct{}), tokens: logBurst, filled: time.Now()}
}

// Dropped returns how many lines were thrown away.
func (l *logFile) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// limit changes how much is kept.
func (l *logFile) limit(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.max = n
}

// Close closes the file; a later line opens it again.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.close()
}

func (l *logFile) close() error {
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}

// pump copies r to the log, line by line, until its end. It returns the first error of writing, after which it goes on
// reading: a full disk must not make a product wait.
func (l *logFile) pump(r io.Reader, stream string) error {
	br := bufio.NewReaderSize(r, logLine)
	var first error
	var flooded int
	for {
		line, err := br.ReadSlice('\n')
		if len(line) > 0 {
			kept, werr := l.line(time.Now(), stream, bytes.TrimRight(line, "\r\n"))
			if first == nil {
				first = werr
			}
			if !kept {
				flooded += len(line)
			}
		}
		if flooded > floodPace/100 {
			flooded = 0
			<-time.After(10 * time.Millisecond)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return first
		}
	}
}

// line appends one line, unless the product has used up what it may log.
func (l *logFile) line(now time.Time, stream string, text []byte) (kept bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens = min(logBurst, l.tokens+now.Sub(l.filled).Seconds()*logRate)
	l.filled = now
	out := appendLine(nil, now, stream, text)
	if float64(len(out)) > l.tokens {
		l.dropped++
		l.unsaid++
		return false, nil
	}
	l.tokens -= float64(len(out))
	if l.unsaid > 0 {
		said := appendLine(nil, now, "agent", fmt.Appendf(nil, "%d lines dropped: the product logs faster than %d KiB/s", l.unsaid, logRate>>10))
		l.unsaid = 0
		out = append(said, out...)
	}
	return true, l.append(out)
}

func (l *logFile) append(b []byte) error {
	if err := l.open(); err != nil {
		return fmt.Errorf("write product log: %w", err)
	}
	if l.size > 0 && l.size+int64(len(b)) > l.max/2 {
		if err := l.rotate(); err != nil {
			return fmt.Errorf("rotate product log: %w", err)
		}
	}
	n, err := l.f.Write(b)
	l.size += int64(n)
	close(l.changed)
	l.changed = make(chan struct{})
	if err != nil {
		return fmt.Errorf("write product log: %w", err)
	}
	return nil
}

func (l *logFile) open() error {
	if l.f != nil {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.f, l.size = f, st.Size()
	return nil
}

func (l *logFile) rotate() error {
	if err := l.close(); err != nil {
		return err
	}
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		return err
	}
	l.generation++
	return l.open()
}

// appendLine writes "TIME STREAM TEXT". What a terminal would obey is shown as \xNN: an operator reads this.
func appendLine(b []byte, now time.Time, stream string, text []byte) []byte {
	b = now.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z ")
	b = append(append(b, stream...), ' ')
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r == '\t' || unicode.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			b = append(b, text[:n]...)
		} else {
			for _, c := range text[:n] {
				b = append(b, '\\', 'x')
				if c < 16 {
					b = append(b, '0')
				}
				b = strconv.AppendUint(b, uint64(c), 16)
			}
		}
		text = text[n:]
	}
	return append(b, '\n')
}

// read gives write what is kept and, if follow, what comes until ctx ends or write fails.
func (l *logFile) read(ctx context.Context, follow bool, write func([]byte) error) error {
	at := logCursor{generation: -1}
	for {
		l.mu.Lock()
		changed, generation := l.changed, l.generation
		l.mu.Unlock()
		if err := at.copy(l.path, generation, write); err != nil {
			return fmt.Errorf("read product log: %w", err)
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// logCursor is how far a reader got.
type logCursor struct {
	generation int // -1: nowhere yet
	offset     int64
}

// copy hands on everything from the cursor to the present end. A reader that is overtaken by two rotations misses lines.
func (c *logCursor) copy(path string, generation int, write func([]byte) error) error {
	if c.generation != generation {
		if c.generation != generation-1 {
			c.offset = 0
		}
		if err := c.file(path+".1", write); err != nil {
			return err
		}
		c.generation, c.offset = generation, 0
	}
	return c.file(path, write)
}

func (c *logCursor) file(path string, write func([]byte) error) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(c.offset, io.SeekStart); err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := f.Read(buf)
		c.offset += int64(n)
		if n > 0 {
			if err := write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
