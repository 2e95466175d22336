package link

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// escape says any bytes in UTF-8, reversibly: a byte that is not part of valid UTF-8 becomes \xHH, a backslash \\.
func escape(s string) string {
	const hex = "0123456789abcdef"
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x`)
			b.WriteByte(hex[s[0]>>4])
			b.WriteByte(hex[s[0]&15])
		case r == '\\':
			b.WriteString(`\\`)
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// unescape is the inverse of escape; what escape never writes is left as it is.
func unescape(s string) string {
	var b strings.Builder
	for {
		head, tail, found := strings.Cut(s, `\`)
		b.WriteString(head)
		if !found {
			return b.String()
		}
		if len(tail) >= 3 && tail[0] == 'x' {
			if c, err := strconv.ParseUint(tail[1:3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				s = tail[3:]
				continue
			}
		}
		b.WriteByte('\\')
		s = strings.TrimPrefix(tail, `\`)
	}
}
