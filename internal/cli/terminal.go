package cli

import (
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// isTerminal reports whether f is an open terminal.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// colour is a terminal's way to write a word.
type colour string

const (
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	bold   colour = "1"
	faint  colour = "2"
)

// paint returns a function that colours text on stdout, where stdout is a terminal and NO_COLOR is not set.
func (a *app) paint() func(c colour, s string) string {
	if a.Getenv("NO_COLOR") != "" || a.Getenv("TERM") == "dumb" || !isTerminal(a.Stdout) {
		return func(_ colour, s string) string { return s }
	}
	return func(c colour, s string) string { return "\x1b[" + string(c) + "m" + s + "\x1b[0m" }
}

// statusColour is the colour of a status, state or authority.
func statusColour(word string) colour {
	switch word {
	case "ok", "running", "live", "allow":
		return green
	case "degraded", "shadow", "starting", "stopping", "backoff", "missing":
		return yellow
	case "failed", "off", "braked", "deny", "required":
		return red
	}
	return faint
}

// plain makes s safe to print on a terminal: names and arguments come from whoever runs programs on this machine and may
// hold control sequences.
func plain(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) < 0 {
		return s
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// shellWord is plain, quoted where a shell would split it.
func shellWord(s string) string {
	if s == "" || strings.ContainsAny(s, " \t\n'\"\\$`*?[]{}()<>|&;#~!") {
		return "'" + strings.ReplaceAll(plain(s), "'", `'\''`) + "'"
	}
	return plain(s)
}
