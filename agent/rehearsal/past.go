package rehearsal

import (
	"errors"
	"fmt"
	"io"

	"bailey/agent/event"
	"bailey/agent/recorder"
)

// Past is what was recorded, the oldest first; io.EOF after the last.
type Past interface {
	Next() (*event.Event, error)
}

// How much of the past is played: the newest.
const (
	maxEvents    = 4096
	maxQuestions = 4096 // different ones
)

// word is what a release answered.
type word uint8

const (
	nothing word = iota // it was not asked, or gave no answer
	allow
	deny
)

// String returns the word for reports.
func (w word) String() string { return [...]string{"nothing", "allow", "deny"}[w] }

// question is one that the release is asked.
type question struct {
	kind     event.Kind
	process  *event.Process
	file     event.File
	before   word // what the installed release answered
	recorded bool
	critical bool
}

// step is one thing to tell or to ask.
type step struct {
	event    *event.Event
	question *question
}

// asked says which questions are the same.
type asked struct {
	kind event.Kind
	file fileKey
}

// past collects steps.
type past struct {
	product string
	steps   []step
	at      map[asked]int // where in steps a question is
}

// gather reads what was recorded and keeps the newest of it. A question that was asked again counts once, where it was asked last.
// What was read before an error is returned with it.
func gather(from Past, product string) ([]step, error) {
	p := past{product: product, at: map[asked]int{}}
	var fault error
	for from != nil {
		e, err := from.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				fault = fmt.Errorf("read what was recorded: %w", err)
			}
			break
		}
		p.take(e)
		if len(p.steps) > 4*(maxEvents+maxQuestions) {
			p.trim()
		}
	}
	p.trim()
	return p.steps, fault
}

func (p *past) take(e *event.Event) {
	if was, ok := recorder.Asked(e); ok {
		q := &question{kind: was.Kind, process: was.Process, file: was.File, recorded: true}
		for _, a := range e.Verdict.Answers {
			if a.Product == p.product && (a.Outcome == event.Answered || a.Outcome == event.Overridden) {
				q.before = said(&a)
			}
		}
		k := asked{q.kind, keyOf(&q.file)}
		if i, ok := p.at[k]; ok {
			p.steps[i] = step{}
		}
		p.at[k] = len(p.steps)
		p.steps = append(p.steps, step{question: q})
		return
	}
	p.steps = append(p.steps, step{event: e})
}

// said is what a product answered. An overridden answer was a deny that did not count.
func said(a *event.Answer) word {
	if a.Outcome == event.Overridden || !a.Allow {
		return deny
	}
	return allow
}

// trim forgets what is older than the newest that are kept.
func (p *past) trim() {
	events, questions, first := 0, 0, len(p.steps)
	for ; first > 0; first-- {
		switch s := p.steps[first-1]; {
		case s.event != nil:
			events++
		case s.question != nil:
			questions++
		}
		if events > maxEvents || questions > maxQuestions {
			break
		}
	}
	kept := make([]step, 0, len(p.steps)-first)
	clear(p.at)
	for _, s := range p.steps[first:] {
		if s.question != nil {
			p.at[asked{s.question.kind, keyOf(&s.question.file)}] = len(kept)
		}
		if s.question != nil || s.event != nil {
			kept = append(kept, s)
		}
	}
	p.steps = kept
}
