package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"bailey/internal/durable"
)

// maxSegments bounds the number of segments, which crashes can make many of small size.
const maxSegments = 1024

// begin makes the next segment. What there is no room for then is dropped, after the new segment says so.
func (c *chain) begin(fields segmentFields) error {
	fields.Format = 1
	list, err := segments(c.dir)
	if err != nil {
		return err
	}
	if c.f != nil && c.unsynced {
		if err := c.sync(); err != nil {
			return err
		}
	}
	victims, drop := c.victims(list)
	seq, prev, at := c.seq, c.prev, c.now()
	text := []byte(nil)
	add := func(kind Kind, v any) error {
		fields, err := encode(v)
		if err != nil {
			return fmt.Errorf("encode the journal's %s: %w", kind, err)
		}
		l := Line{Seq: seq + 1, Time: at, Boot: c.boot(), BootID: c.bootID, Kind: kind, Fields: fields, Prev: prev}
		text = l.append(text)
		seq, prev = l.Seq, l.Hash
		return nil
	}
	if err := add(KindSegment, fields); err != nil {
		return err
	}
	if drop != nil {
		if err := add(KindDropped, drop); err != nil {
			return err
		}
	}
	path := segmentPath(c.dir, c.seq+1)
	f, err := makeSegment(path, text)
	if err != nil {
		return err
	}
	if c.f != nil {
		_ = c.f.Close() // it is synced, or it is not ours any more
	}
	c.f, c.path, c.size, c.unsynced = f, path, int64(len(text)), false
	c.seq, c.prev, c.time = seq, prev, at
	for _, s := range victims {
		_ = os.Remove(s.path) // tried again with the next segment
	}
	return nil
}

// victims says which segments must go so that one more has room.
func (c *chain) victims(list []segment) ([]segment, *droppedFields) {
	all := c.perSegment
	for _, s := range list {
		all += s.size
	}
	n := 0
	for n < len(list)-1 && (all > c.total || len(list)-n >= maxSegments) {
		all -= list[n].size
		n++
	}
	if n == 0 {
		return nil, nil
	}
	d := &droppedFields{Through: list[n].first - 1}
	for _, s := range list[:n] {
		d.Segments = append(d.Segments, s.name())
	}
	if head, err := firstLine(list[n].path); err == nil {
		d.Hash = head.Prev.String()
	}
	return list[:n], d
}

// firstLine returns a segment's first line.
func firstLine(path string) (Line, error) {
	f, err := os.Open(path)
	if err != nil {
		return Line{}, fmt.Errorf("open the journal: %w", err)
	}
	defer f.Close()
	text, err := newLineReader(f, 0).next()
	if err != nil {
		return Line{}, fmt.Errorf("read the journal: %w", err)
	}
	return ParseLine(text)
}

// makeSegment makes a file that is there with its text, synced, or not at all.
func makeSegment(path string, text []byte) (*os.File, error) {
	tmp := path + segmentNew
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err = os.Remove(tmp); err == nil {
			f, err = os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("begin a segment of the journal: %w", err)
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system without it
			err = os.Rename(tmp, path)
		}
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin a segment of the journal: %w", err), f.Close(), ignoreMissing(os.Remove(tmp)))
	}
	return f, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
