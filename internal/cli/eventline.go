package cli

import (
	"fmt"
	"strings"
	"time"

	"bailey/agent/control"
	productv1 "bailey/api/product/v1"
	"bailey/internal/boottime"
)

// eventJSON returns the project's JSON of an event, with its line's end.
func eventJSON(e *productv1.Event) ([]byte, error) {
	data, err := control.MarshalJSON(e)
	return append(data, '\n'), err
}

// eventLine writes events for a human, one line each.
type eventLine struct {
	paint func(colour, string) string
	tree  bool
	boot  time.Time // wall-clock time of the zero of CLOCK_BOOTTIME
	clock string    // how a time is written
}

func newEventLine(paint func(colour, string) string, tree bool) *eventLine {
	return &eventLine{paint: paint, tree: tree, boot: boottime.Zero(), clock: "15:04:05.000"}
}

// head begins a line: time and type.
func (l *eventLine) head(at time.Time, kind string) string {
	return l.paint(faint, at.Format(l.clock)) + "  " + l.paint(bold, fmt.Sprintf("%-11s", kind))
}

// format returns e as a line: time, type, pid, uid, executable, what it did and, in a tree, its ancestors.
func (l *eventLine) format(e *productv1.Event, ancestors []*productv1.Process) []byte {
	var b strings.Builder
	b.WriteString(l.head(l.boot.Add(time.Duration(e.GetTime())), e.GetKind().String()))
	if p := e.GetProcess(); p != nil {
		fmt.Fprintf(&b, "  %7d  %5d  %s", p.GetKey().GetPid(), p.GetCredentials().GetEuid(), plain(program(p)))
	} else {
		fmt.Fprintf(&b, "  %7s  %5s  %s", "-", "-", l.paint(faint, "agent"))
	}
	if d := l.detail(e); d != "" {
		b.WriteString("  " + d)
	}
	if l.tree && len(ancestors) > 0 {
		b.WriteString("  " + l.paint(faint, chain(ancestors)))
	}
	b.WriteByte('\n')
	return []byte(b.String())
}

// program names what a process runs.
func program(p *productv1.Process) string {
	if path := p.GetExecutable().GetPath(); path != "" {
		return path
	}
	return "[" + p.GetComm() + "]"
}

// chain writes ancestors from the parent upwards.
func chain(ancestors []*productv1.Process) string {
	var b strings.Builder
	for _, p := range ancestors {
		fmt.Fprintf(&b, "← %s(%d) ", plain(p.GetComm()), p.GetKey().GetPid())
	}
	return strings.TrimSuffix(b.String(), " ")
}

// detail says what e's process did, or what the agent did.
func (l *eventLine) detail(e *productv1.Event) string {
	switch {
	case e.GetExec() != nil:
		return execDetail(e.GetExec())
	case e.GetFork() != nil:
		return fmt.Sprintf("→ %d", e.GetFork().GetChild().GetKey().GetPid())
	case e.GetExit() != nil:
		if s := e.GetExit().GetSignal(); s != 0 {
			return fmt.Sprintf("killed by signal %d", s)
		}
		return fmt.Sprintf("code %d", e.GetExit().GetCode())
	case e.GetFile() != nil:
		if from := e.GetFile().GetFrom(); from != "" {
			return shellWord(from) + " → " + filePath(e.GetFile().GetFile())
		}
		return filePath(e.GetFile().GetFile())
	case e.GetVerdict() != nil:
		return l.verdict(e.GetVerdict())
	case e.GetFinding() != nil:
		return l.finding(e.GetFinding())
	case e.GetProduct() != nil:
		p := e.GetProduct()
		return l.withReason(fmt.Sprintf("%s %s is %s, authority %s", plain(p.GetProduct()), plain(p.GetRelease()), l.word(p.GetState()), l.word(p.GetAuthority())), p.GetReason())
	case e.GetHealth() != nil:
		h := e.GetHealth()
		return l.withReason(fmt.Sprintf("%s is %s: %s", plain(h.GetComponent()), l.word(h.GetStatus()), plain(h.GetSummary())), h.GetRemedy())
	case e.GetTamper() != nil:
		return l.tamper(e.GetTamper())
	}
	return ""
}

func (l *eventLine) word(s string) string { return l.paint(statusColour(s), plain(s)) }

func (l *eventLine) withReason(text, reason string) string {
	if reason == "" {
		return text
	}
	return text + " (" + plain(reason) + ")"
}

// tamper says what was tried against the platform, and what became of it.
func (l *eventLine) tamper(m *productv1.Tamper) string {
	became := "happened"
	switch {
	case m.GetRefused():
		became = "refused"
	case m.GetUndone():
		became = "undone"
	}
	out := l.word(became) + " " + plain(m.GetHook())
	if pid := m.GetTarget().GetPid(); pid != 0 {
		out += fmt.Sprintf(" of %d", pid)
	}
	if name := m.GetName(); name != "" {
		out += " of " + plain(name)
	}
	if n := m.GetSuppressed(); n != 0 {
		out += fmt.Sprintf(", and %d more", n)
	}
	return out
}

// maxArguments bounds the arguments on a line that a human reads; --json has more.
const maxArguments = 300

func execDetail(x *productv1.Exec) string {
	var words []string
	for _, w := range x.GetArgv() {
		words = append(words, shellWord(w))
	}
	text := strings.Join(words, " ")
	if runes := []rune(text); len(runes) > maxArguments {
		text = string(runes[:maxArguments]) + "…"
	} else if x.GetArgvTruncated() {
		text += " …"
	}
	if s := x.GetScript(); s != "" {
		text += " (script " + plain(s) + ")"
	}
	return text
}

func filePath(f *productv1.File) string {
	path := f.GetPath()
	if path == "" {
		path = fmt.Sprintf("inode %d on device %d", f.GetIno(), f.GetDev())
		return path
	}
	if f.GetDeleted() {
		return shellWord(path) + " (deleted)"
	}
	return shellWord(path)
}

func (l *eventLine) verdict(v *productv1.Verdict) string {
	word := "allow"
	if !v.GetAllow() {
		word = "deny"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s by %s in %s", l.word(word), v.GetAsked(), filePath(v.GetFile()), plain(v.GetReason()), span(v.GetLatency()))
	for i, a := range v.GetAnswers() {
		b.WriteString([]string{" [", ", "}[min(i, 1)])
		answer := "deny"
		if a.GetAllow() {
			answer = "allow"
		}
		fmt.Fprintf(&b, "%s %s", plain(a.GetProduct()), answer)
		if a.GetOutcome() != "answered" {
			b.WriteString(" " + plain(a.GetOutcome()))
		}
		if a.GetShadow() {
			b.WriteString(" shadow")
		}
	}
	if len(v.GetAnswers()) > 0 {
		b.WriteString("]")
	}
	if v.GetCached() {
		b.WriteString(" cached")
	}
	return b.String()
}

func (l *eventLine) finding(f *productv1.Finding) string {
	text := fmt.Sprintf("%s: %s %s", plain(f.GetProduct()), l.paint(severityColour(f.GetSeverity()), f.GetSeverity().String()), plain(f.GetTitle()))
	if f.GetRule() != "" {
		text += " (" + plain(f.GetRule()) + ")"
	}
	if f.GetAction() != "" {
		text += ", " + plain(f.GetAction())
	}
	if f.GetFile().GetPath() != "" {
		text += " " + filePath(f.GetFile())
	}
	return text
}

func severityColour(s productv1.Severity) colour {
	switch {
	case s >= productv1.Severity_high:
		return red
	case s >= productv1.Severity_medium:
		return yellow
	}
	return faint
}
