package recorder

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Skip is a piece of a segment that could not be read, or that is not there.
type Skip struct {
	Segment string // its file
	Offset  int64
	Bytes   int64
	Reason  string
	Torn    bool // the end of what was being written when the agent, or the machine, stopped
}

// String says it in one line.
func (s Skip) String() string {
	if s.Bytes == 0 {
		return fmt.Sprintf("%s at byte %d: %s", s.Segment, s.Offset, s.Reason)
	}
	return fmt.Sprintf("%s at byte %d: %s (%d bytes)", s.Segment, s.Offset, s.Reason, s.Bytes)
}

// span is a block's place in its segment.
type span struct {
	blockHeader
	at int64
}

// scanner finds the blocks of one segment by their headers.
type scanner struct {
	r     io.ReaderAt
	size  int64
	name  string
	spans []span
	skips []Skip
	head  [blockSize]byte
	buf   []byte
}

// scanSegment finds the blocks of a segment, whatever state it is in. The error is the disk's.
func scanSegment(r io.ReaderAt, size int64, name string) ([]span, []Skip, error) {
	s := &scanner{r: r, size: size, name: name}
	err := s.scan()
	return s.spans, s.skips, err
}

func (s *scanner) scan() error {
	var h segmentHeader
	first := make([]byte, min(segmentSize, s.size))
	if err := s.read(first, 0); err != nil {
		return err
	}
	at := int64(segmentSize)
	if !h.parse(first) {
		if s.size < segmentSize || onlyZeros(first) && s.zerosFrom(0) {
			s.skip(0, s.size, "the segment has no beginning yet", true)
			return nil
		}
		m, found, err := s.commonMarker()
		if err != nil {
			return err
		}
		if !found {
			s.skip(0, s.size, "this is no segment of a recorder", false)
			return nil
		}
		h.marker, at = m, 0
	}
	return s.blocks(h.marker, at)
}

// blocks walks from block to block.
func (s *scanner) blocks(m marker, at int64) error {
	for at < s.size {
		b, ok, err := s.header(at, m)
		switch {
		case err != nil:
			return err
		case ok && at+b.size() <= s.size:
			s.spans = append(s.spans, span{b, at})
			at += b.size()
			continue
		case ok, s.size-at < blockSize:
			s.skip(at, s.size-at, "the last block is not whole", true)
			return nil
		}
		next, err := s.find(m.needle(), at+1)
		if err != nil {
			return err
		}
		switch {
		case next < s.size:
			s.skip(at, next-at, "damaged", false)
		case s.zerosFrom(at):
			s.skip(at, s.size-at, "the end was never written", true)
		default:
			s.skip(at, s.size-at, "damaged", false)
		}
		at = next
	}
	return nil
}

func (s *scanner) skip(at, n int64, reason string, torn bool) {
	s.skips = append(s.skips, Skip{s.name, at, n, reason, torn})
}

// header reads the block header at an offset and reports whether one of this segment is there.
func (s *scanner) header(at int64, m marker) (h blockHeader, ok bool, err error) {
	if s.size-at < blockSize {
		return h, false, nil
	}
	if err := s.read(s.head[:], at); err != nil {
		return h, false, err
	}
	return h, h.parse(s.head[:]) && h.marker == m, nil
}

// read fills b. A segment that ends earlier than it did is read as zeros: it is no block's content.
func (s *scanner) read(b []byte, at int64) error {
	n, err := s.r.ReadAt(b, at)
	if err == nil || n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		clear(b[n:])
		return nil
	}
	return fmt.Errorf("read %s: %w", s.name, err)
}

// searchStep is how much of a segment is looked at once.
const searchStep = 256 << 10

// window is where the bytes from an offset on are read into.
func (s *scanner) window(at int64) []byte {
	if s.buf == nil {
		s.buf = make([]byte, min(searchStep, s.size))
	}
	return s.buf[:min(int64(len(s.buf)), s.size-at)]
}

// each calls f with the offset of every needle from an offset on, until it says that it has enough.
func (s *scanner) each(needle []byte, from int64, f func(at int64) (enough bool, err error)) error {
	for from < s.size {
		b := s.window(from)
		if err := s.read(b, from); err != nil {
			return err
		}
		for i := 0; ; i++ {
			j := bytes.Index(b[i:], needle)
			if j < 0 {
				break
			}
			i += j
			if enough, err := f(from + int64(i)); enough || err != nil {
				return err
			}
		}
		if from+int64(len(b)) == s.size {
			return nil
		}
		from += int64(len(b) - len(needle) + 1)
	}
	return nil
}

// find returns the offset of the next block of this segment, its size when there is none.
func (s *scanner) find(needle []byte, from int64) (int64, error) {
	next := s.size
	m := marker(needle[len(blockMagic):])
	err := s.each(needle, from, func(at int64) (bool, error) {
		_, ok, err := s.header(at, m)
		if ok {
			next = at
		}
		return ok, err
	})
	return next, err
}

// commonMarker finds the marker of a segment whose header is damaged: the one that most of its blocks have. A block that
// somebody smuggled into a path or an argument is outnumbered.
func (s *scanner) commonMarker() (best marker, found bool, err error) {
	count := map[marker]int{}
	err = s.each([]byte(blockMagic), 0, func(at int64) (bool, error) {
		var h blockHeader
		if s.size-at < blockSize {
			return false, nil
		}
		if err := s.read(s.head[:], at); err != nil {
			return false, err
		}
		if h.parse(s.head[:]) {
			count[h.marker]++
		}
		return false, nil
	})
	for m, n := range count {
		if n > count[best] || n == count[best] && bytes.Compare(m[:], best[:]) < 0 {
			best, found = m, true
		}
	}
	return best, found, err
}

// zerosFrom reports whether nothing but zeros follows.
func (s *scanner) zerosFrom(at int64) bool {
	for at < s.size {
		b := s.window(at)
		if s.read(b, at) != nil || !onlyZeros(b) {
			return false
		}
		at += int64(len(b))
	}
	return true
}
