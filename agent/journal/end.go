package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// end is what the last segment was left like.
type end struct {
	seq    uint64 // of the last line that can be read; 0: none
	hash   Hash
	time   time.Time
	size   int64
	torn   *torn
	broken *broken
}

// findEnd reads the segment s. A tail without its line's end is what a crash leaves; anything else that is not as it was
// written is somebody's doing.
func findEnd(s segment) (end, error) {
	var e end
	f, err := os.Open(s.path)
	if err != nil {
		return e, fmt.Errorf("open the journal: %w", err)
	}
	defer f.Close()
	lines := newLineReader(f, 0)
	for n := 1; ; n++ {
		text, err := lines.next()
		if isEOF(err) {
			break
		}
		if err != nil {
			return e, fmt.Errorf("read the journal: %w", err)
		}
		l, err := ParseLine(text)
		switch {
		case err != nil:
			e.blame(s, n, err.Error())
			continue
		case n == 1 && (l.Seq != s.first || l.Kind != KindSegment):
			e.blame(s, n, "it is not the first line of this segment")
		case n > 1 && (l.Prev != e.hash || l.Seq != e.seq+1):
			e.blame(s, n, "it does not follow the line before it")
		}
		e.seq, e.hash, e.time = l.Seq, l.Hash, l.Time
	}
	e.size = lines.offset
	if e.seq == 0 {
		e.blame(s, 1, "no line of it can be read")
	}
	e.torn, err = tear(s.path, lines.offset)
	return e, err
}

func (e *end) blame(s segment, line int, what string) {
	if e.broken == nil {
		e.broken = &broken{Segment: s.name(), Line: line, What: what}
	}
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
