package recorder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"bailey/agent/event"
)

// Decoder reads the payload of a record.
type Decoder interface {
	ParseEvent(payload []byte) (*event.Event, error)
}

// ReaderConfig configures a Reader. Dir and Decoder are required.
type ReaderConfig struct {
	Dir     string // of the segments
	Decoder Decoder
	Query   Query
	// Newest, if not 0, is how many stored bytes are read at most: whole blocks, the newest.
	Newest int64
	// Boot and Zero are the present boot and what the clock on the wall makes of its beginning now: times of the present boot
	// are told by it, those of earlier ones as they were recorded.
	Boot string
	Zero time.Time
}

// Reader reads records in the order in which they were recorded, from a snapshot of what was there when it was opened. It
// needs no agent and disturbs none. Not safe for concurrent use.
type Reader struct {
	cfg    ReaderConfig
	filter *filter
	unpack *unpacker
	zeros  map[bootID]int64
	files  []indexed
	skips  []Skip

	open   *os.File
	raw    []byte // of the block being read
	in     *span
	blocks uint64 // that were read, for tests of what is passed over
}

// indexed is a segment with its blocks that were not read yet.
type indexed struct {
	name  string
	spans []span
}

// Open reads the headers of all blocks in cfg.Dir. A directory that is not there is fs.ErrNotExist. Close the Reader.
func Open(cfg ReaderConfig) (*Reader, error) {
	list, err := listSegments(cfg.Dir)
	if err != nil {
		return nil, err
	}
	u, err := newUnpacker()
	if err != nil {
		return nil, err
	}
	r := &Reader{cfg: cfg, filter: newFilter(cfg.Query), unpack: u, zeros: map[bootID]int64{}}
	for _, s := range list {
		if err := r.index(segmentName(s.number)); err != nil {
			u.close()
			return nil, err
		}
	}
	r.findMissing()
	r.keepNewest(cfg.Newest)
	if b := parseBoot(cfg.Boot); b != (bootID{}) && !cfg.Zero.IsZero() {
		r.zeros[b] = cfg.Zero.UnixNano()
	}
	return r, nil
}

// index finds the blocks of one segment. What cannot be opened is skipped, but for want of a permission: then nothing can.
func (r *Reader) index(name string) error {
	f, size, err := openSegment(filepath.Join(r.cfg.Dir, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // overwritten meanwhile
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open what was recorded: %w", err)
	case err != nil:
		r.skips = append(r.skips, Skip{Segment: name, Reason: err.Error()})
		return nil
	}
	defer f.Close()
	spans, skips, err := scanSegment(f, size, name)
	r.skips = append(r.skips, skips...)
	if err != nil {
		r.skips = append(r.skips, Skip{Segment: name, Reason: err.Error()})
	}
	for i := range spans {
		r.zeros[spans[i].boot] = spans[i].zero
	}
	r.files = append(r.files, indexed{name, spans})
	return nil
}

// findMissing notes blocks that were written and are neither there nor among the damage.
func (r *Reader) findMissing() {
	damaged := map[string]bool{}
	for _, s := range r.skips {
		damaged[s.Segment] = true
	}
	var last *span
	excused := false
	for _, f := range r.files {
		excused = excused || damaged[f.name]
		for i := range f.spans {
			s := &f.spans[i]
			if last != nil && !excused && s.run == last.run && s.boot == last.boot && s.index > last.index+1 {
				r.skips = append(r.skips, Skip{Segment: f.name, Offset: s.at, Reason: fmt.Sprintf("%d blocks before this one are missing", s.index-last.index-1)})
			}
			last = s
		}
		excused = damaged[f.name]
	}
}

// keepNewest passes over all blocks but the newest that have so many bytes together.
func (r *Reader) keepNewest(bytes int64) {
	if bytes == 0 {
		return
	}
	for i := len(r.files) - 1; i >= 0; i-- {
		spans := r.files[i].spans
		first := len(spans)
		for first > 0 && bytes >= spans[first-1].size() {
			first--
			bytes -= spans[first].size()
		}
		r.files[i].spans = spans[first:]
		if first > 0 {
			bytes = 0 // nothing before a hole
		}
	}
}

// Next returns the next record that the query asks for, io.EOF after the last.
func (r *Reader) Next() (*Record, error) {
	for {
		for len(r.raw) > 0 {
			rec, err := r.cut()
			if err != nil {
				r.skips = append(r.skips, Skip{Segment: r.files[0].name, Offset: r.in.at, Reason: "a record cannot be read: " + err.Error()})
				continue
			}
			if r.filter.wants(rec) {
				return rec, nil
			}
		}
		if err := r.nextBlock(); err != nil {
			return nil, err
		}
	}
}

// cut takes the next record off the block.
func (r *Reader) cut() (*Record, error) {
	t, body, rest, err := cutRecord(r.raw)
	r.raw = rest // nothing after what cannot be cut
	if err != nil {
		return nil, err
	}
	rec := &Record{Type: t, Boot: r.in.boot.String(), Run: r.in.run}
	if t == Event {
		rec.Payload = append([]byte(nil), body...)
		if rec.Event, err = r.cfg.Decoder.ParseEvent(rec.Payload); err != nil {
			return nil, err
		}
		rec.Time = rec.Event.Time
	} else if err := rec.parseNote(body); err != nil {
		return nil, err
	}
	rec.Wall = wallTime(r.zeros[r.in.boot], rec.Time)
	return rec, nil
}

// nextBlock reads the next block of interest.
func (r *Reader) nextBlock() error {
	for len(r.files) > 0 {
		f := &r.files[0]
		if len(f.spans) == 0 {
			r.closeFile()
			r.files = r.files[1:]
			continue
		}
		s := &f.spans[0]
		f.spans = f.spans[1:]
		if r.filter.skips(&s.blockHeader, r.zeros[s.boot]) {
			continue
		}
		if r.open == nil {
			file, _, err := openSegment(filepath.Join(r.cfg.Dir, f.name))
			if err != nil {
				reason := "it was overwritten while it was read"
				if !errors.Is(err, fs.ErrNotExist) {
					reason = err.Error()
				}
				r.skips = append(r.skips, Skip{Segment: f.name, Reason: reason})
				f.spans = nil
				continue
			}
			r.open = file
		}
		raw, err := r.unpack.records(r.open, s)
		if err != nil {
			r.skips = append(r.skips, Skip{f.name, s.at, s.size(), err.Error(), errors.Is(err, errShort)})
			continue
		}
		r.raw, r.in = raw, s
		r.blocks++
		return nil
	}
	return io.EOF
}

func (r *Reader) closeFile() {
	if r.open != nil {
		_ = r.open.Close()
		r.open = nil
	}
}

// Skipped returns what could not be read so far; all of it after the last record.
func (r *Reader) Skipped() []Skip { return r.skips }

// Close ends the reading.
func (r *Reader) Close() {
	r.closeFile()
	r.unpack.close()
}

// Events are the events of a Reader alone, in the form in which they can be played again (agent/sensor/replay).
type Events struct{ Reader *Reader }

// Next returns the next event, io.EOF after the last.
func (e Events) Next() (*event.Event, error) {
	for {
		r, err := e.Reader.Next()
		if err != nil {
			return nil, err
		}
		if r.Type == Event {
			return r.Event, nil
		}
	}
}
