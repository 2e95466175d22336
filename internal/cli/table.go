package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// table prints rows in aligned columns. Cells may be coloured: their width is given by their text alone.
type table struct {
	rows [][]cell
}

type cell struct {
	text  string
	paint func(string) string // nil: as it is
}

func (t *table) row(cells ...any) {
	row := make([]cell, len(cells))
	for i, c := range cells {
		switch v := c.(type) {
		case cell:
			row[i] = v
		default:
			row[i] = cell{text: fmt.Sprint(v)}
		}
	}
	t.rows = append(t.rows, row)
}

// list adds a row for each line, the first of which has the head.
func (t *table) list(head string, lines []string) {
	for _, line := range lines {
		t.row(head, line)
		head = ""
	}
}

// print writes the rows, each behind indent, with two spaces between columns and none at the end of a line.
func (t *table) print(w io.Writer, indent string) {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range t.rows {
		var b strings.Builder
		b.WriteString(indent)
		for i, c := range row {
			text := c.text
			if c.paint != nil {
				text = c.paint(text)
			}
			b.WriteString(text)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// counts prints a map as "key 1, other 2" in the order of its keys, without zeros.
func counts(m map[string]uint64) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// span prints nanoseconds as a human writes a duration.
func span(ns uint64) string {
	d := time.Duration(ns)
	switch {
	case d < time.Millisecond:
		return d.Round(100 * time.Nanosecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// size prints bytes in binary units.
func size(n uint64) string {
	for _, u := range []struct {
		name string
		bits uint
	}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if n >= 1<<u.bits {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(uint64(1)<<u.bits), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// plural counts things.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
