package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

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

	readPatience = 10 * time.Second // with reading it
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
	from     source
	critical bool
	data     []byte // fromGood: the whole file
	own      *own   // fromOwn
	want     word   // fromOwn
}

// source is where a question comes from.
type source uint8

const (
	fromPast     source = iota
	fromCritical        // a file that must not be denied
	fromCorpus          // a file of the machine, used as on every machine
	fromGood            // a file that comes with Bailey
	fromOwn             // a test that comes with the release
)

// String returns the source's words for reports.
func (s source) String() string {
	return [...]string{"past", "critical file", "corpus", "good file", "own test"}[s]
}

// common reports whether it is asked on every machine alike, so that the installed release has not been asked.
func (s source) common() bool { return s == fromCorpus || s == fromGood }

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
func gather(ctx context.Context, from Past, product string) ([]step, error) {
	p := past{product: product, at: map[asked]int{}}
	var fault error
	pace := pace{patience: readPatience}
	for from != nil {
		if err := pace.rest(ctx); err != nil {
			return nil, err
		}
		e, err := from.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				fault = fmt.Errorf("read what was recorded: %w", err)
			}
			break
		}
		p.take(e)
		if len(p.steps) > maxEvents+maxQuestions+maxEvents/2 { // what is kept for nothing is memory of the agent's
			p.trim()
		}
	}
	p.trim()
	return p.steps, fault
}

func (p *past) take(e *event.Event) {
	if was, ok := recorder.Asked(e); ok {
		q := &question{kind: was.Kind, process: was.Process, file: was.File}
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

// trim forgets what is older than the newest that are kept, of events and of questions: where much happens and little is asked, questions go back
// further.
func (p *past) trim() {
	events, questions := 0, 0
	kept := make([]step, 0, len(p.steps))
	for i := len(p.steps) - 1; i >= 0 && (events < maxEvents || questions < maxQuestions); i-- {
		switch s := p.steps[i]; {
		case s.event != nil && events < maxEvents:
			events++
			kept = append(kept, s)
		case s.question != nil && questions < maxQuestions:
			questions++
			kept = append(kept, s)
		}
	}
	slices.Reverse(kept)
	clear(p.at)
	for i, s := range kept {
		if s.question != nil {
			p.at[asked{s.question.kind, keyOf(&s.question.file)}] = i
		}
	}
	p.steps = kept
}
