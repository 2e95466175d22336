package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Reader reads a journal's lines in order, and later those that were added meanwhile. It checks each line by itself and not
// the chain: that is Verify's. Not safe for concurrent use.
type Reader struct {
	dir    string
	first  uint64 // the segment that was read last
	offset int64
	line   int
}

// NewReader returns a reader of the journal in dir.
func NewReader(dir string) *Reader { return &Reader{dir: dir} }

// Read calls each with every complete line that was not read yet and its text, which is valid until each returns, and bad
// with every one that cannot be understood. It ends with the first error of each.
func (r *Reader) Read(each func(l *Line, text []byte) error, bad func(Fault)) error {
	list, err := segments(r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(list) == 0 && r.first == 0 {
		return &EmptyError{r.dir}
	}
	for _, s := range list {
		if s.first < r.first {
			continue
		}
		if s.first != r.first {
			r.first, r.offset, r.line = s.first, 0, 0
		}
		if err := r.segment(s, each, bad); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (r *Reader) segment(s segment, each func(*Line, []byte) error, bad func(Fault)) error {
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("open the journal: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(r.offset, io.SeekStart); err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	lines := newLineReader(f, r.offset)
	for {
		text, err := lines.next()
		if isEOF(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the journal: %w", err)
		}
		r.offset = lines.offset
		r.line++
		l, err := ParseLine(text)
		if err != nil {
			bad(Fault{Segment: s.name(), Line: r.line, What: err.Error()})
			continue
		}
		if err := each(&l, text); err != nil {
			return err
		}
	}
}
