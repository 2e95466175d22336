package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Report is what Verify found.
type Report struct {
	Dir      string    `json:"dir"`
	OK       bool      `json:"ok"`
	Segments int       `json:"segments"`
	Lines    uint64    `json:"lines"` // that can be read
	Bytes    int64     `json:"bytes"`
	First    uint64    `json:"first"`    // the number of the first line that is kept
	Since    time.Time `json:"since"`    // its time: from there on the journal is complete, if it is OK
	Complete bool      `json:"complete"` // nothing has made room yet: First is the first line of all
	Seq      uint64    `json:"seq"`      // of the last line
	Head     string    `json:"head"`     // its hash, to be noted elsewhere
	Time     time.Time `json:"time"`     // its time
	Torn     []Tear    `json:"torn"`     // lines that a crash cut, as the agent noted
	Tail     int64     `json:"tail"`     // bytes after the last line: it is being written, or was cut by a crash just now
	Faults   []Fault   `json:"faults"`   // at most MaxFaults of them
	More     int       `json:"more"`     // faults that are not listed
}

// Tear is a last line that a crash cut.
type Tear struct {
	Segment string `json:"segment"`
	Bytes   int64  `json:"bytes"`
}

// Fault is one place where the journal is not what the agent wrote.
type Fault struct {
	Segment string `json:"segment,omitempty"` // the file
	Line    int    `json:"line,omitempty"`    // in the file, from 1
	What    string `json:"what"`
}

// String names the place.
func (f Fault) String() string {
	switch {
	case f.Segment == "":
		return f.What
	case f.Line == 0:
		return f.Segment + ": " + f.What
	}
	return fmt.Sprintf("%s:%d: %s", f.Segment, f.Line, f.What)
}

// MaxFaults bounds the faults that a report lists.
const MaxFaults = 100

// EmptyError says that there is no journal.
type EmptyError struct{ Dir string }

// Error names the directory.
func (e *EmptyError) Error() string { return "there is no journal in " + e.Dir }

// Verify reads the journal in dir and finds every line that was changed, removed, added or moved. Each anchor must be the
// hash of a line: it was the head when it was noted, and everything before it is as it was then. Verify needs no agent and
// changes nothing; a running agent may go on writing.
func Verify(dir string, anchors ...Hash) (Report, error) {
	for tries := 0; ; tries++ {
		r, err := verify(dir, anchors)
		if errors.Is(err, fs.ErrNotExist) && tries < 3 {
			continue // a segment has just made room
		}
		return r, err
	}
}

func verify(dir string, anchors []Hash) (Report, error) {
	v := verifier{report: Report{Dir: dir, Torn: []Tear{}, Faults: []Fault{}}, anchors: map[Hash]bool{}, dropped: map[uint64]string{}}
	for _, a := range anchors {
		v.anchors[a] = false
	}
	list, err := segments(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return v.report, err
	}
	if len(list) == 0 {
		return v.report, &EmptyError{dir}
	}
	for i, s := range list {
		if err := v.segment(s, i == len(list)-1); err != nil {
			return v.report, err
		}
	}
	v.conclude()
	return v.report, nil
}

// verifier goes along the chain.
type verifier struct {
	report  Report
	anchors map[Hash]bool
	dropped map[uint64]string // hashes of the last lines that made room, by their numbers

	started bool
	seq     uint64 // of the line before
	prev    Hash
	lost    bool // lines could not be read: what follows need not follow what was before
	begins  Hash // what the first line that is kept follows
	torn    *torn
}

func (v *verifier) fault(s segment, line int, format string, args ...any) {
	if len(v.report.Faults) >= MaxFaults {
		v.report.More++
		return
	}
	f := Fault{Line: line, What: fmt.Sprintf(format, args...)}
	if s.path != "" {
		f.Segment = s.name()
	}
	v.report.Faults = append(v.report.Faults, f)
}

func (v *verifier) segment(s segment, last bool) error {
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("open the journal: %w", err)
	}
	defer f.Close()
	v.report.Segments++
	lines := newLineReader(f, 0)
	n := 0
	for {
		text, err := lines.next()
		if isEOF(err) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the journal: %w", err)
		}
		n++
		l, err := ParseLine(text)
		if err != nil {
			v.fault(s, n, "it was changed: %v", err)
			v.lost = true
			continue
		}
		v.line(s, n, &l)
	}
	if n == 0 {
		v.fault(s, 0, "it has no line")
		v.lost = true
	}
	v.report.Bytes += lines.offset
	tail, err := tear(s.path, lines.offset)
	if err != nil {
		return err
	}
	v.torn = tail
	if last && tail != nil {
		v.report.Tail = tail.Bytes
	}
	return nil
}

// line checks one line that is whole by itself against those before it.
func (v *verifier) line(s segment, n int, l *Line) {
	v.report.Lines++
	if _, known := v.anchors[l.Hash]; known {
		v.anchors[l.Hash] = true
	}
	if !v.started {
		v.started, v.begins = true, l.Prev
		v.report.First, v.report.Since = l.Seq, l.Time
	} else {
		v.follows(s, n, l)
	}
	v.lost = false
	v.seq, v.prev = l.Seq, l.Hash
	v.report.Seq, v.report.Head, v.report.Time = l.Seq, l.Hash.String(), l.Time
	v.place(s, n, l)
	if l.Kind == KindDropped {
		var d droppedFields
		if l.Decode(&d) == nil {
			v.dropped[d.Through] = d.Hash
		}
	}
}

func (v *verifier) follows(s segment, n int, l *Line) {
	switch {
	case l.Prev == v.prev && l.Seq == v.seq+1:
	case l.Seq <= v.seq:
		v.fault(s, n, "line number %d is repeated or out of order: it follows number %d", l.Seq, v.seq)
	case v.lost:
		// What was there could not be read, and was named.
	case l.Seq == v.seq+2:
		v.fault(s, n, "line number %d is missing before it", v.seq+1)
	case l.Seq > v.seq+1:
		v.fault(s, n, "line numbers %d to %d are missing before it", v.seq+1, l.Seq-1)
	default:
		v.fault(s, n, "it does not follow the line before it: that one was replaced, or this one")
	}
}

// place checks that a segment begins with its own first line, and that only segments do; and what that line says of the
// segment before.
func (v *verifier) place(s segment, n int, l *Line) {
	if n > 1 {
		if l.Kind == KindSegment {
			v.fault(s, n, "a first line of a segment lies inside another one")
		}
		return
	}
	torn := v.torn
	v.torn = nil
	if l.Kind != KindSegment || l.Seq != s.first {
		v.fault(s, n, "it is not the first line of this segment")
		return
	}
	var f segmentFields
	if err := l.Decode(&f); err != nil {
		v.fault(s, n, "%v", err)
		return
	}
	if f.Broken != nil {
		v.fault(s, n, "the agent noticed at %s that somebody else changed the journal: %s: %s", l.Time.Format(time.RFC3339), f.Broken.Segment, f.Broken.What)
	}
	switch {
	case torn != nil && f.Torn != nil && *torn == *f.Torn:
		v.report.Torn = append(v.report.Torn, Tear{torn.Segment, torn.Bytes})
	case torn != nil:
		v.fault(segment{path: torn.Segment}, 0, "the %d bytes after the last line are no line, and no crash was noted that left them", torn.Bytes)
	case f.Torn != nil && v.report.Segments > 1:
		v.fault(s, n, "the end of %s, which a crash cut, is not as it was then", f.Torn.Segment)
	}
}

// conclude checks what can only be known at the end.
func (v *verifier) conclude() {
	r := &v.report
	r.Complete = v.started && r.First == 1 && v.begins == Hash{}
	if hash, said := v.dropped[r.First-1]; v.started && !r.Complete && (!said || hash != v.begins.String()) {
		v.fault(segment{}, 0, "the lines before number %d are missing, and the agent did not remove them", r.First)
	}
	for a, found := range v.anchors {
		if !found {
			v.fault(segment{}, 0, "no line has the hash %s: the journal's end was cut, or it was written anew, or that line has made room since", a)
		}
	}
	r.OK = len(r.Faults) == 0
}
