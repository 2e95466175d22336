package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"bailey/agent/journal"
)

// journalText writes a line's fields for a human: in words where they have a usual form, else as key=value.
func journalText(l *journal.Line) string {
	fields := map[string]any{}
	d := json.NewDecoder(bytes.NewReader(l.Fields))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		return plain(string(l.Fields))
	}
	switch l.Kind {
	case journal.KindDeny, journal.KindOverridden:
		return verdictText(fields)
	case journal.KindOperator:
		return operatorText(fields)
	case journal.KindAgent:
		delete(fields, "config") // a whole file; --json has it
	case journal.KindGrant:
		delete(fields, "means") // the grants in other words
	}
	return fieldPairs(fields)
}

// field returns a field of an object as text, nested ones by their path.
func field(fields map[string]any, path ...string) string {
	var v any = fields
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return ""
		}
		v = m[p]
	}
	return value(v)
}

func value(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return shellWord(v)
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case []any:
		var out []string
		for _, x := range v {
			out = append(out, value(x))
		}
		return strings.Join(out, ",")
	case map[string]any:
		return "{" + fieldPairs(v) + "}"
	}
	return plain(fmt.Sprint(v))
}

// fieldPairs writes an object as "key=value other=value" in the order of its keys.
func fieldPairs(fields map[string]any) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		out = append(out, plain(k)+"="+value(fields[k]))
	}
	return strings.Join(out, " ")
}

func verdictText(f map[string]any) string {
	text := fmt.Sprintf("%s %s", field(f, "asked"), field(f, "file", "path"))
	if p := field(f, "products"); p != "" {
		text += " by " + p
	}
	if by := field(f, "by"); by != "products" {
		text += " (" + by + ")"
	}
	if o := field(f, "overridden"); o != "" {
		text += ", did not count: " + o
	}
	if exe := field(f, "process", "executable"); exe != "" {
		text += fmt.Sprintf(", asked for by %s (pid %s, uid %s)", exe, field(f, "process", "pid"), field(f, "process", "uid"))
	}
	return text
}

func operatorText(f map[string]any) string {
	text := fmt.Sprintf("#%s %s %s", field(f, "action"), field(f, "method"), field(f, "phase"))
	if field(f, "by", "uid") != "" {
		text += fmt.Sprintf(" by uid %s (pid %s %s", field(f, "by", "uid"), field(f, "by", "pid"), field(f, "by", "executable"))
		if login := field(f, "by", "login_uid"); login != "" {
			text += ", logged in as uid " + login
		}
		text += ")"
	}
	if r, ok := f["request"].(map[string]any); ok && len(r) > 0 {
		text += ": " + fieldPairs(r)
	}
	if err := field(f, "err"); err != "" {
		text += ": " + err
	}
	return text
}
