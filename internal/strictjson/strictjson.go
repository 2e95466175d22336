// Package strictjson refuses JSON that two readers could understand differently, or that a reader could fall over: null, numbers that
// are not integers, names that occur twice in an object, broken UTF-8, anything after the document, and more of it than was agreed. It
// builds no values; what it lets through is read by encoding/json.
//
// Invariant: what Check accepts means the same to every reader that matches names exactly or without regard to case.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrSize says that a document has more bytes, levels or values than allowed.
var ErrSize = errors.New("too much JSON")

// Limits bounds a document.
type Limits struct {
	Bytes  int // of text
	Depth  int // of objects and arrays in one another; 0 means 16
	Values int // of all kinds, names included; 0 means one for every two bytes of Bytes
}

// Check reports why text must not be read, or nil.
func Check(text []byte, l Limits) error {
	if l.Depth == 0 {
		l.Depth = 16
	}
	if l.Values == 0 {
		l.Values = l.Bytes/2 + 1
	}
	if len(text) > l.Bytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrSize, len(text), l.Bytes)
	}
	if !utf8.Valid(text) {
		return errors.New("JSON with broken UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	s := scan{d: d, l: l}
	if err := s.value(0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON document")
	}
	return nil
}

// Unmarshal checks text and reads it into v, which must have a field for every name.
func Unmarshal(text []byte, l Limits, v any) error {
	if err := Check(text, l); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// scan is one pass over a document.
type scan struct {
	d *json.Decoder
	l Limits
	n int
}

func (s *scan) token() (json.Token, error) {
	if s.n++; s.n > s.l.Values {
		return nil, fmt.Errorf("%w: more than %d values", ErrSize, s.l.Values)
	}
	t, err := s.d.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	return t, nil
}

func (s *scan) value(depth int) error {
	t, err := s.token()
	if err != nil {
		return err
	}
	switch t := t.(type) {
	case nil:
		return errors.New("JSON with null")
	case json.Number:
		return integer(t)
	case json.Delim:
		if depth++; depth > s.l.Depth {
			return fmt.Errorf("%w: more than %d levels", ErrSize, s.l.Depth)
		}
		if t == '{' {
			return s.object(depth)
		}
		return s.array(depth)
	}
	return nil
}

func (s *scan) array(depth int) error {
	for s.d.More() {
		if err := s.value(depth); err != nil {
			return err
		}
	}
	_, err := s.token()
	return err
}

func (s *scan) object(depth int) error {
	seen := map[string]bool{}
	for s.d.More() {
		t, err := s.token()
		if err != nil {
			return err
		}
		name, ok := t.(string)
		if !ok {
			return fmt.Errorf("read JSON: %v is no name", t)
		}
		// encoding/json takes "Signed" for "signed": two of these are two of one.
		folded := fold(name)
		if seen[folded] {
			return fmt.Errorf("JSON with %q twice in one object", name)
		}
		seen[folded] = true
		if err := s.value(depth); err != nil {
			return err
		}
	}
	_, err := s.token()
	return err
}

// fold maps names that strings.EqualFold calls equal to one text: the two letters outside ASCII that fold into it come first.
func fold(name string) string { return strings.ToLower(strings.ToUpper(name)) }

// integer refuses what is not a plain integer of 64 bits: canonical JSON has no other numbers.
func integer(n json.Number) error {
	text := n.String()
	if v, err := strconv.ParseInt(text, 10, 64); err != nil || strconv.FormatInt(v, 10) != text {
		return fmt.Errorf("JSON with the number %.40s, which is no 64-bit integer", text)
	}
	return nil
}
