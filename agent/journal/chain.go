package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// chain appends to the journal on disk. Not safe for concurrent use. After an error nothing of what failed is on disk, and
// the same may be tried again.
type chain struct {
	dir        string
	total      int64 // bytes in all
	perSegment int64
	bootID     string
	now        func() time.Time
	boot       func() uint64

	f        *os.File // the newest segment; nil: open must be called
	path     string
	size     int64
	seq      uint64 // of the last line
	prev     Hash   // of the last line
	time     time.Time
	unsynced bool
	buf      []byte

	// tampered is called when the journal is not as it was left.
	tampered func(broken)
}

// open finds the end of the journal, or begins one.
func (c *chain) open() error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("make the journal's directory: %w", err)
	}
	if err := c.sweep(); err != nil {
		return err
	}
	list, err := segments(c.dir)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		if c.seq == 0 {
			return c.begin(segmentFields{})
		}
		gone := broken{What: "all segments were removed"}
		c.tampered(gone)
		return c.begin(segmentFields{Broken: &gone})
	}
	last := list[len(list)-1]
	end, err := findEnd(last)
	if err != nil {
		return err
	}
	for i := len(list) - 2; end.seq == 0 && i >= 0; i-- { // nothing in the last one can be read: go on from what can
		earlier, err := findEnd(list[i])
		if err != nil {
			return err
		}
		end.seq, end.hash, end.time = earlier.seq, earlier.hash, earlier.time
	}
	c.seq, c.prev, c.time = max(end.seq, last.first), end.hash, end.time
	if end.broken != nil {
		c.tampered(*end.broken)
	}
	if end.torn != nil || end.broken != nil {
		return c.begin(segmentFields{Torn: end.torn, Broken: end.broken})
	}
	f, err := os.OpenFile(last.path, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("open the journal: %w", err)
	}
	c.f, c.path, c.size, c.unsynced = f, last.path, end.size, true
	return nil
}

// sweep removes segments whose making was not finished.
func (c *chain) sweep() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("list the journal: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), segmentEnd+segmentNew) {
			if err := os.Remove(filepath.Join(c.dir, e.Name())); err != nil {
				return fmt.Errorf("remove an unfinished segment: %w", err)
			}
		}
	}
	return nil
}

// write appends lines made of items and returns how many of them are on their way to the disk.
func (c *chain) write(items []*item) (int, error) {
	if c.f == nil {
		if err := c.open(); err != nil {
			return 0, err
		}
	}
	if err := c.check(); err != nil {
		return 0, err
	}
	done := 0
	for done < len(items) {
		n, err := c.writeSome(items[done:])
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// writeSome appends what fits into the present segment, or begins the next one.
func (c *chain) writeSome(items []*item) (int, error) {
	seq, prev, at, n := c.seq, c.prev, c.time, 0
	c.buf = c.buf[:0]
	for _, it := range items {
		l := Line{Seq: seq + 1, Time: it.wall, Boot: it.boot, BootID: c.bootID, Kind: it.kind, Fields: it.text, Prev: prev}
		start := len(c.buf)
		c.buf = l.append(c.buf)
		if c.size+int64(len(c.buf)) > c.perSegment {
			c.buf = c.buf[:start]
			break
		}
		seq, prev, at, n = l.Seq, l.Hash, l.Time, n+1
	}
	if n == 0 {
		return 0, c.begin(segmentFields{})
	}
	if err := c.put(c.buf); err != nil {
		return 0, err
	}
	c.seq, c.prev, c.time = seq, prev, at
	return n, nil
}

// put appends b to the segment, or nothing of it.
func (c *chain) put(b []byte) error {
	n, err := c.f.Write(b)
	if err == nil {
		c.size += int64(n)
		c.unsynced = true
		return nil
	}
	err = fmt.Errorf("write the journal: %w", err)
	if n > 0 {
		// What was written is no line, and nobody was told that it is.
		if terr := c.f.Truncate(c.size); terr != nil {
			c.abandon() // open will find a torn tail, and name it
			return errors.Join(err, terr)
		}
	}
	return err
}

// check finds out whether the segment is as this agent left it.
func (c *chain) check() error {
	var st, named unix.Stat_t
	if err := unix.Fstat(int(c.f.Fd()), &st); err != nil {
		return fmt.Errorf("look at the journal: %w", err)
	}
	what := ""
	switch {
	case st.Nlink == 0 || unix.Lstat(c.path, &named) != nil || named.Ino != st.Ino || named.Dev != st.Dev:
		what = "it was removed, moved or replaced"
	case st.Size < c.size:
		what = fmt.Sprintf("it was cut from %d to %d bytes", c.size, st.Size)
	case st.Size > c.size:
		what = fmt.Sprintf("%d bytes were added to it", st.Size-c.size)
	default:
		return nil
	}
	b := broken{Segment: filepath.Base(c.path), What: what}
	c.tampered(b)
	return c.begin(segmentFields{Broken: &b})
}

// sync returns when everything that was written is on the disk.
func (c *chain) sync() error {
	if c.f == nil || !c.unsynced {
		return nil
	}
	if err := unix.Fdatasync(int(c.f.Fd())); err != nil {
		return fmt.Errorf("sync the journal: %w", err)
	}
	c.unsynced = false
	return nil
}

// abandon makes the next write look at the disk again.
func (c *chain) abandon() {
	if c.f != nil {
		_ = c.f.Close() // nothing that was written to it was promised
	}
	c.f = nil
}

// close syncs and ends the work on the journal.
func (c *chain) close() error {
	if c.f == nil {
		return nil
	}
	err := c.sync()
	err = errors.Join(err, c.f.Close())
	c.f = nil
	return err
}
