package config

import (
	"bytes"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// MaxSize bounds a configuration file, in bytes.
const MaxSize = 1 << 20

// Parse reads and checks data; name is the file's name in errors. Keys that are not given keep their defaults.
func Parse(name string, data []byte) (*Config, error) {
	if len(data) > MaxSize {
		return nil, &Error{File: name, Problems: []Problem{{Text: fmt.Sprintf("has %d bytes; a configuration has at most %d", len(data), MaxSize)}}}
	}
	c := Default()
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return nil, &Error{File: name, Problems: decodeProblems(err)}
	}
	if problems := c.check(); len(problems) > 0 {
		lines := keyLines(data)
		for i := range problems {
			problems[i].Line = lines[problems[i].Key]
		}
		sort.SliceStable(problems, func(i, j int) bool { return problems[i].Line < problems[j].Line })
		return nil, &Error{File: name, Problems: problems}
	}
	return c, nil
}

// decodeProblems turns the decoder's errors into problems with lines.
func decodeProblems(err error) []Problem {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		var out []Problem
		for i := range strict.Errors {
			e := &strict.Errors[i]
			row, _ := e.Position()
			out = append(out, Problem{Line: row, Key: dotted(e.Key()), Text: "unknown key" + suggest(e.Key())})
		}
		return out
	}
	var de *toml.DecodeError
	if errors.As(err, &de) {
		row, _ := de.Position()
		return []Problem{{Line: row, Key: dotted(de.Key()), Text: strings.TrimPrefix(de.Error(), "toml: ")}}
	}
	return []Problem{{Text: strings.TrimPrefix(err.Error(), "toml: ")}}
}

// keyLines finds the line of each key of a document that has already been parsed, so that a problem with a value can name
// it. Arrays of tables do not occur in this file.
func keyLines(data []byte) map[string]int {
	lines := make(map[string]int)
	var p unstable.Parser
	p.Reset(data)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table:
			table = keyOf(e)
			lines[dotted(table)] = lineOf(&p, e)
		case unstable.KeyValue:
			key := append(append([]string{}, table...), keyOf(e)...)
			lines[dotted(key)] = lineOf(&p, e)
			inlineLines(&p, e.Value(), key, lines)
		}
	}
	return lines
}

// inlineLines adds the keys of an inline table.
func inlineLines(p *unstable.Parser, v *unstable.Node, prefix []string, lines map[string]int) {
	if v == nil || v.Kind != unstable.InlineTable {
		return
	}
	for it := v.Children(); it.Next(); {
		kv := it.Node()
		key := append(append([]string{}, prefix...), keyOf(kv)...)
		lines[dotted(key)] = lineOf(p, kv)
		inlineLines(p, kv.Value(), key, lines)
	}
}

func keyOf(n *unstable.Node) []string {
	var out []string
	for it := n.Key(); it.Next(); {
		out = append(out, string(it.Node().Data))
	}
	return out
}

func lineOf(p *unstable.Parser, n *unstable.Node) int {
	it := n.Key()
	if !it.Next() {
		return 0
	}
	return p.Shape(it.Node().Raw).Start.Line
}

// suggest names the known key that an unknown one was probably meant to be.
func suggest(key []string) string {
	want := strings.Join(key, ".")
	best, bestDistance := "", 4
	for _, k := range knownKeys() {
		if d := distance(want, k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; is %s meant?", best)
}

// knownKeys lists every dotted key of the file.
func knownKeys() []string {
	var doc map[string]map[string]any
	data, err := toml.Marshal(Default())
	if err != nil {
		return nil
	}
	if err := toml.Unmarshal(data, &doc); err != nil {
		return nil
	}
	var out []string
	for table, keys := range doc {
		for k := range keys {
			out = append(out, table+"."+k)
		}
	}
	sort.Strings(out)
	return out
}

// distance is the number of edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
