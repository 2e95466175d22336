package journal

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	segmentEnd = ".jsonl"
	segmentNew = ".new" // a segment that is being made
	seqDigits  = 20
)

// segment is one file of the journal.
type segment struct {
	path  string
	first uint64 // the number of its first line, by its name
	size  int64
}

func (s segment) name() string { return filepath.Base(s.path) }

// segments lists the segments of dir in order. Other files are not the journal's and are left alone.
func segments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the journal: %w", err)
	}
	var out []segment
	for _, e := range entries {
		digits, found := strings.CutSuffix(e.Name(), segmentEnd)
		first, err := strconv.ParseUint(digits, 10, 64)
		if !found || err != nil || len(digits) != seqDigits || first == 0 || first > maxSeq {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // it just made room
		}
		if err != nil {
			return nil, fmt.Errorf("list the journal: %w", err)
		}
		out = append(out, segment{path: filepath.Join(dir, e.Name()), first: first, size: info.Size()})
	}
	slices.SortFunc(out, func(a, b segment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	return out, nil
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%0*d%s", seqDigits, first, segmentEnd))
}

// segmentFields are those of a segment's first line.
type segmentFields struct {
	Format int     `json:"format"`
	Torn   *torn   `json:"torn,omitempty"`
	Broken *broken `json:"broken,omitempty"`
}

// torn names the end of the segment before, which a crash cut.
type torn struct {
	Segment string `json:"segment"`
	Offset  int64  `json:"offset"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
}

// broken says that the segment before was not as the agent left it.
type broken struct {
	Segment string `json:"segment"`
	Line    int    `json:"line,omitempty"`
	What    string `json:"what"`
}

// droppedFields are those of a line of the kind dropped.
type droppedFields struct {
	Segments []string `json:"segments"`
	Through  uint64   `json:"through"` // the number of the last line that went
	Hash     string   `json:"hash"`    // of that line
}

// lineReader reads the lines of one segment.
type lineReader struct {
	r      *bufio.Reader
	offset int64 // behind the last line that was read
}

func newLineReader(r io.Reader, offset int64) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, maxLine), offset: offset}
}

// next returns the next line without its end; it is valid until the next call. A line that is longer than any can be is
// returned in part. io.EOF means that no complete line follows; rest then reads what does.
func (l *lineReader) next() ([]byte, error) {
	b, err := l.r.ReadSlice('\n')
	if err == nil {
		l.offset += int64(len(b))
		return b[:len(b)-1], nil
	}
	if !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	start, n := append([]byte(nil), b...), int64(len(b))
	for errors.Is(err, bufio.ErrBufferFull) {
		b, err = l.r.ReadSlice('\n')
		n += int64(len(b))
	}
	if err != nil {
		return nil, err
	}
	l.offset += n
	return start, nil
}

// tear describes what follows the last complete line of the file at path, nil if nothing does.
func tear(path string, offset int64) (*torn, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	if n == 0 {
		return nil, nil
	}
	return &torn{Segment: filepath.Base(path), Offset: offset, Bytes: n, SHA256: Hash(sum.Sum(nil)).String()}, nil
}
