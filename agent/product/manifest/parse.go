package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Error is one fault in a manifest.
type Error struct {
	Line, Column int    // from 1; 0 when the fault has no place (a missing key)
	Key          string // dotted
	Msg          string
	Hint         string // what to write instead; may be empty
}

// Error returns "manifest.toml:LINE:COL: key: message (hint)".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(FileName)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Load reads the manifest of the product folder dir.
func Load(dir string) (*Manifest, error) {
	f, err := os.Open(filepath.Join(dir, FileName))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return Parse(data)
}

// Parse reads and checks a manifest. The error joins every fault found, each an *Error.
func Parse(data []byte) (*Manifest, error) {
	if len(data) > MaxBytes {
		return nil, &Error{Msg: fmt.Sprintf("larger than %d bytes", MaxBytes)}
	}
	m := defaults()
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return nil, decodeError(err)
	}
	v := &validator{places: places(data)}
	v.manifest(&m)
	if len(v.faults) > 0 {
		return nil, errors.Join(v.faults...)
	}
	return &m, nil
}

func decodeError(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		var all []error
		for i := range strict.Errors {
			d := &strict.Errors[i]
			line, col := d.Position()
			all = append(all, &Error{Line: line, Column: col, Key: strings.Join(d.Key(), "."), Msg: "unknown key", Hint: knownKeys(d.Key())})
		}
		return errors.Join(all...)
	}
	var d *toml.DecodeError
	if errors.As(err, &d) {
		line, col := d.Position()
		return &Error{Line: line, Column: col, Key: strings.Join(d.Key(), "."), Msg: strings.TrimPrefix(d.Error(), "toml: ")}
	}
	return &Error{Msg: strings.TrimPrefix(err.Error(), "toml: ")}
}

// knownKeys names the keys of the table that key is in.
func knownKeys(key []string) string {
	t := reflect.TypeOf(Manifest{})
	table := "at the top"
	for _, part := range key[:max(len(key)-1, 0)] {
		f, ok := fieldByKey(t, part)
		if !ok || f.Type.Kind() != reflect.Struct {
			break
		}
		t, table = f.Type, "in ["+part+"]"
	}
	var names []string
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("toml"); name != "-" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return "known " + table + ": " + strings.Join(names, ", ")
}

func fieldByKey(t reflect.Type, key string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("toml") == key {
			return t.Field(i), true
		}
	}
	return reflect.StructField{}, false
}

type place struct{ line, column int }

// places maps each dotted key of a well-formed document to where it is written, so that a value that is valid TOML and not
// a valid manifest can be pointed at.
func places(data []byte) map[string]place {
	out := make(map[string]place)
	p := unstable.Parser{}
	p.Reset(data)
	var table []string
	for p.NextExpression() {
		n := p.Expression()
		var key []string
		var at place
		for it := n.Key(); it.Next(); {
			k := it.Node()
			if len(key) == 0 {
				s := p.Shape(k.Raw)
				at = place{s.Start.Line, s.Start.Column}
			}
			key = append(key, string(k.Data))
		}
		if n.Kind == unstable.Table {
			table = key
			out[strings.Join(key, ".")] = at
			continue
		}
		out[strings.Join(append(append([]string(nil), table...), key...), ".")] = at
	}
	return out
}
