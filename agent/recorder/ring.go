package recorder

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// DirName is the recorder's directory in the agent's state directory.
const DirName = "recorder"

// The shape of a ring.
const (
	segments      = 16       // that a full ring has at least
	maxSegment    = 16 << 20 // bytes
	reservedShare = 20       // one part in so many of a file system is never filled
	suffix        = ".segment"
)

var (
	// errReserve says that the file system has no more than what is left alone.
	errReserve = errors.New("the file system is nearly full")
	// errGone says that somebody removed the segment that is being written.
	errGone = errors.New("the recorder's segment was removed")
)

// segment is one file of the ring.
type segment struct {
	number uint64
	size   int64
}

func segmentName(number uint64) string { return fmt.Sprintf("%020d%s", number, suffix) }

// segmentNumber is the inverse of segmentName.
func segmentNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && n < 1<<62 // what nobody counted up to is nobody's segment
}

// listSegments returns the segments in dir, the oldest first.
func listSegments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the recorder's segments: %w", err)
	}
	var list []segment
	for _, e := range entries {
		n, ok := segmentNumber(e.Name())
		if !ok {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the recorder's segments: %w", err)
		}
		list = append(list, segment{n, info.Size()})
	}
	slices.SortFunc(list, func(a, b segment) int { return cmp.Compare(a.number, b.number) })
	return list, nil
}

// ring is the directory of segments, and the one that is being written. Not safe for concurrent use.
type ring struct {
	dir   string
	limit int64
	disk  disk
	boot  bootID
	wall  func() int64
	// retire takes over a file that is written to no more.
	retire func(file)

	list  []segment // oldest first; the last is the open one, if there is one
	total int64
	cap   int64 // what may be used now: limit, or less where the file system is nearly full
	tight bool  // it is less

	open   file
	path   string
	marker marker
	next   uint64
}

// load makes the directory and reads what is in it.
func (r *ring) load() error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return fmt.Errorf("make the recorder's directory: %w", err)
	}
	list, err := listSegments(r.dir)
	if err != nil {
		return err
	}
	r.list, r.total, r.next = list, 0, max(r.next, 1)
	for _, s := range list {
		r.total += s.size
		r.next = max(r.next, s.number+1)
	}
	r.cap = r.limit
	return r.shrink(r.limit)
}

// segmentTarget is the size at which a segment is followed by the next.
func (r *ring) segmentTarget() int64 { return min(r.limit/segments, maxSegment) }

// append writes a block that seal makes for the marker of the segment it goes to. When it returns an error, nothing of the
// block is there, or a piece at the end of a segment that readers pass over.
func (r *ring) append(seal func(marker) []byte) error {
	if r.open != nil && r.current().size >= r.segmentTarget() {
		// Where no new one can be had, the present one goes on.
		if err := r.rotate(); err != nil && !full(err) {
			return err
		}
	}
	if r.open == nil {
		if err := r.rotate(); err != nil {
			return err
		}
	}
	b := seal(r.marker)
	if err := r.room(int64(len(b))); err != nil {
		return err
	}
	err := r.write(b)
	if full(err) && r.dropOldest() == nil {
		err = r.write(b)
	}
	return err
}

func (r *ring) current() *segment { return &r.list[len(r.list)-1] }

// write appends b to the open segment, whole or not at all.
func (r *ring) write(b []byte) error {
	c := r.current()
	n, err := r.open.Write(b)
	if err == nil {
		c.size += int64(n)
		r.total += int64(n)
		return nil
	}
	if n > 0 && r.open.Truncate(c.size) != nil {
		c.size += int64(n)
		r.total += int64(n)
		r.close()
	}
	return fmt.Errorf("write a block: %w", err)
}

// full reports whether err is about space, or files, that removing something may give.
func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// rotate opens the next segment and then closes the present one.
func (r *ring) rotate() error {
	if err := r.room(segmentSize); err != nil {
		return err
	}
	path := filepath.Join(r.dir, segmentName(r.next))
	f, err := r.disk.Create(path)
	if full(err) && r.dropOldest() == nil {
		f, err = r.disk.Create(path)
	}
	if errors.Is(err, fs.ErrExist) {
		r.next++ // a foreign file: the next try finds the next number
	}
	if err != nil {
		return fmt.Errorf("open a segment: %w", err)
	}
	h := segmentHeader{number: r.next, boot: r.boot, created: r.wall()}
	_, _ = rand.Read(h.marker[:]) // it never fails
	if _, err := f.Write(h.append(nil)); err != nil {
		return errors.Join(fmt.Errorf("begin a segment: %w", err), f.Close(), r.disk.Remove(path))
	}
	r.close()
	r.open, r.path, r.marker = f, path, h.marker
	r.list = append(r.list, segment{r.next, segmentSize})
	r.total += segmentSize
	r.next++
	return nil
}

// room removes what is oldest until n bytes fit within the bound.
func (r *ring) room(n int64) error {
	if err := r.measure(); err != nil {
		return err
	}
	if err := r.shrink(r.cap - n); err != nil {
		return err
	}
	if r.total+n > r.cap {
		return errReserve
	}
	return nil
}

// measure decides how much may be used. Below the reserve the recorder does not give up what it has, or whoever can fill a
// disk could wipe the history; it takes no more either, and goes on within that.
func (r *ring) measure() error {
	free, all, err := r.disk.Free(r.dir)
	if err != nil {
		return err
	}
	reserve := all / reservedShare
	if free < reserve {
		if !r.tight {
			r.tight, r.cap = true, min(r.limit, r.total)
		}
		return nil
	}
	r.cap = min(r.limit, r.total+int64(min(free-reserve, 1<<62)))
	r.tight = r.cap < r.limit && free-reserve < uint64(r.segmentTarget())
	return nil
}

// shrink removes the oldest segments until the rest, without which nothing can be written, takes no more than bound.
func (r *ring) shrink(bound int64) error {
	for r.total > bound {
		if err := r.dropOldest(); errors.Is(err, errNothing) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

var errNothing = errors.New("there is no older segment")

// dropOldest removes the oldest segment that is not open.
func (r *ring) dropOldest() error {
	if len(r.list) == 0 || r.open != nil && len(r.list) == 1 {
		return errNothing
	}
	s := r.list[0]
	err := r.disk.Remove(filepath.Join(r.dir, segmentName(s.number)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the oldest segment: %w", err)
	}
	r.list = r.list[1:]
	r.total -= s.size
	return nil
}

// close ends the open segment.
func (r *ring) close() {
	if r.open != nil {
		r.retire(r.open)
		r.open = nil
	}
}

// check finds out whether the open segment is still where it was made; if not, the directory is read anew.
func (r *ring) check() error {
	if r.open == nil {
		return nil
	}
	if _, err := os.Lstat(r.path); errors.Is(err, fs.ErrNotExist) {
		r.close()
		return errors.Join(errGone, r.load())
	}
	return nil
}
