package replay

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"

	"bailey/agent/event"
)

// record is one line.
type record struct {
	Kind    string               `json:"kind"`
	Seq     uint64               `json:"seq,omitempty"`
	Time    uint64               `json:"time"`
	Process *event.Process       `json:"process,omitempty"`
	Exec    *event.ExecDetail    `json:"exec,omitempty"`
	Fork    *event.ForkDetail    `json:"fork,omitempty"`
	Exit    *event.ExitDetail    `json:"exit,omitempty"`
	File    *event.FileDetail    `json:"file,omitempty"`
	Verdict *event.VerdictDetail `json:"verdict,omitempty"`
	Finding *event.FindingDetail `json:"finding,omitempty"`
	Product *event.ProductDetail `json:"product,omitempty"`
	Health  *event.HealthDetail  `json:"health,omitempty"`
}

// MaxLine bounds one recorded event.
const MaxLine = 1 << 20

// Writer records events. Not safe for concurrent use.
type Writer struct{ w *bufio.Writer }

// NewWriter returns a Writer to w; call Flush at the end.
func NewWriter(w io.Writer) *Writer { return &Writer{w: bufio.NewWriter(w)} }

// Write records e.
func (w *Writer) Write(e *event.Event) error {
	r := record{Kind: e.Kind.String(), Seq: e.Seq, Time: e.Time, Process: e.Process, Exec: e.Exec, Fork: e.Fork, Exit: e.Exit,
		File: e.File, Verdict: e.Verdict, Finding: e.Finding, Product: e.Product, Health: e.Health}
	// JSON holds text only, and paths are bytes: what is not text is written in an armour. e itself must not change.
	escaped := mapStrings(reflect.ValueOf(r), func(s string) (string, error) { return armour(s), nil })
	if escaped.err != nil {
		return fmt.Errorf("record an event: %w", escaped.err)
	}
	b, err := json.Marshal(escaped.v.Interface())
	if err != nil {
		return fmt.Errorf("record an event: %w", err)
	}
	if len(b) >= MaxLine {
		return fmt.Errorf("record an event: it takes %d bytes, more than %d", len(b), MaxLine)
	}
	if _, err := w.w.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("record an event: %w", err)
	}
	return nil
}

// Flush writes what is buffered.
func (w *Writer) Flush() error { return w.w.Flush() }

// Reader reads what Writer wrote. It is a Source. Not safe for concurrent use.
type Reader struct {
	scan *bufio.Scanner
	line int
}

var _ Source = (*Reader)(nil)

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), MaxLine)
	return &Reader{scan: s}
}

// Next returns the next event, io.EOF after the last. A line that is no event is an error that names it.
func (r *Reader) Next() (*event.Event, error) {
	for r.scan.Scan() {
		r.line++
		if len(bytes.TrimSpace(r.scan.Bytes())) == 0 {
			continue
		}
		e, err := decode(r.scan.Bytes())
		if err != nil {
			return nil, fmt.Errorf("read recorded event, line %d: %w", r.line, err)
		}
		return e, nil
	}
	if err := r.scan.Err(); err != nil {
		return nil, fmt.Errorf("read recorded event, line %d: %w", r.line+1, err)
	}
	return nil, io.EOF
}

func decode(line []byte) (*event.Event, error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var raw record
	if err := d.Decode(&raw); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("more than one object on the line")
	}
	plain := mapStrings(reflect.ValueOf(raw), unarmour)
	if plain.err != nil {
		return nil, plain.err
	}
	r := plain.v.Interface().(record)
	kind, err := event.ParseKind(r.Kind)
	if err != nil {
		return nil, err
	}
	return &event.Event{Kind: kind, Seq: r.Seq, Time: r.Time, Process: r.Process, Exec: r.Exec, Fork: r.Fork, Exit: r.Exit,
		File: r.File, Verdict: r.Verdict, Finding: r.Finding, Product: r.Product, Health: r.Health}, nil
}

// armourMark starts a string that is base64 of the real one. No path, name or argument can start with a NUL byte.
const armourMark = "\x00"

func armour(s string) string {
	if utf8.ValidString(s) && !strings.HasPrefix(s, armourMark) {
		return s
	}
	return armourMark + base64.StdEncoding.EncodeToString([]byte(s))
}

func unarmour(s string) (string, error) {
	rest, ok := strings.CutPrefix(s, armourMark)
	if !ok {
		return s, nil
	}
	b, err := base64.StdEncoding.DecodeString(rest)
	if err != nil {
		return "", fmt.Errorf("decode armoured text: %w", err)
	}
	return string(b), nil
}
