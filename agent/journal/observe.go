package journal

import (
	"strings"
	"time"

	"bailey/agent/event"
)

// Observe writes down what is worth it of an event of the agent itself: denies, denies that did not count, and states of
// products. Other events are not the journal's. It never waits.
func (j *Journal) Observe(e *event.Event) {
	it := &item{boot: e.Time, event: e}
	switch {
	case e.Verdict != nil:
		it.kind, it.product = kindOf(e.Verdict)
	case e.Product != nil:
		it.kind, it.product = KindProduct, e.Product.Product
	case e.Health != nil:
		it.kind = KindHealth
	}
	if it.kind == "" {
		return
	}
	// Not when it is written: that may be much later.
	it.wall = j.cfg.Now().Add(-time.Duration(j.cfg.Boot() - min(e.Time, j.cfg.Boot())))
	j.offer(it)
}

// kindOf says what a verdict is to the journal, and which product it is counted for if it is lost.
func kindOf(v *event.VerdictDetail) (k Kind, product string) {
	if !v.Decision.Allow {
		for _, a := range v.Answers {
			if decided(a) {
				return KindDeny, a.Product
			}
		}
		return KindDeny, ""
	}
	for _, a := range v.Answers {
		if inVain(a) {
			return KindOverridden, a.Product
		}
	}
	return "", ""
}

// decided reports whether a made the verdict a deny.
func decided(a event.Answer) bool {
	return !a.Allow && !a.Shadow && a.Outcome != event.Unneeded && a.Outcome != event.Overridden
}

// inVain reports whether a was a deny of a live product that did not count.
func inVain(a event.Answer) bool { return a.Outcome == event.Overridden && !a.Shadow }

// verdictFields are those of a line of the kinds deny and overridden.
type verdictFields struct {
	Question   uint64         `json:"question,omitempty"` // as in events
	Asked      string         `json:"asked"`
	File       fileFields     `json:"file"`
	Process    *processFields `json:"process,omitempty"`
	By         string         `json:"by"`                   // the verdict's reason
	Products   []string       `json:"products,omitempty"`   // whose deny, or whose silence, decided
	Overridden []string       `json:"overridden,omitempty"` // whose deny did not count
	Latency    uint64         `json:"latency"`              // nanoseconds
}

type fileFields struct {
	Path string `json:"path"`
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
	Size int64  `json:"size"`
	UID  uint32 `json:"uid"`
}

type processFields struct {
	PID        uint32 `json:"pid"`
	Start      uint64 `json:"start"`
	UID        uint32 `json:"uid"`
	EUID       uint32 `json:"euid"`
	Executable string `json:"executable"`
	Container  string `json:"container,omitempty"`
}

type productFields struct {
	Product   string `json:"product"`
	Release   string `json:"release"`
	State     string `json:"state"`
	Authority string `json:"authority"`
	Reason    string `json:"reason,omitempty"`
	Restarts  uint32 `json:"restarts"`
}

type healthFields struct {
	Component string `json:"component"`
	Status    string `json:"status"`
	Summary   string `json:"summary"`
	Remedy    string `json:"remedy,omitempty"`
}

// eventFields makes the fields of an event that Observe took.
func eventFields(e *event.Event) any {
	switch {
	case e.Verdict != nil:
		return fieldsOfVerdict(e)
	case e.Product != nil:
		p := e.Product
		return productFields{p.Product, word(p.Release), p.State, p.Authority, word(p.Reason), p.Restarts}
	default:
		h := e.Health
		return healthFields{word(h.Component), h.Status, word(h.Summary), word(h.Remedy)}
	}
}

func fieldsOfVerdict(e *event.Event) verdictFields {
	v := e.Verdict
	out := verdictFields{
		Question: v.QuestionID, Asked: v.Asked.String(), By: v.Decision.Reason.String(), Latency: v.Latency,
		File: fileFields{word(v.File.Path), v.File.Dev, v.File.Ino, v.File.Size, v.File.UID},
	}
	for _, a := range v.Answers {
		switch {
		case inVain(a):
			out.Overridden = append(out.Overridden, a.Product)
		case !v.Decision.Allow && decided(a):
			out.Products = append(out.Products, a.Product)
		}
	}
	if p := e.Process; p != nil {
		out.Process = &processFields{p.Key.PID, p.Key.Start, p.Credentials.UID, p.Credentials.EUID, word(p.Executable.Path), word(p.ContainerID)}
	}
	return out
}

// maxWord bounds what strangers name, in bytes: a line of the journal is not theirs to make long.
const maxWord = 1024

// word cuts s in its middle where it is too long, and makes it valid UTF-8.
func word(s string) string {
	if len(s) > maxWord {
		s = s[:maxWord/2] + "…" + s[len(s)-maxWord/2:]
	}
	return strings.ToValidUTF8(s, "�")
}
