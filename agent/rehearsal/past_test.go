package rehearsal

import (
	"errors"
	"io"
	"testing"

	"bailey/agent/event"
)

// list is a Past in memory.
type list []*event.Event

func (l *list) Next() (*event.Event, error) {
	if len(*l) == 0 {
		return nil, io.EOF
	}
	e := (*l)[0]
	*l = (*l)[1:]
	return e, nil
}

func verdict(ino uint64, answers ...event.Answer) *event.Event {
	return &event.Event{Kind: event.Verdict, Verdict: &event.VerdictDetail{Asked: event.Exec, File: event.File{Ino: ino, CTime: 1}, Answers: answers}}
}

func answer(product string, outcome event.AnswerOutcome, allow bool) event.Answer {
	return event.Answer{Product: product, Outcome: outcome, Allow: allow}
}

// TestWhatWasAnswered: only what the product itself said counts, and a deny that did not count is one.
func TestWhatWasAnswered(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers []event.Answer
		want    word
	}{
		"allowed":               {[]event.Answer{answer("p", event.Answered, true)}, allow},
		"denied":                {[]event.Answer{answer("q", event.Answered, true), answer("p", event.Answered, false)}, deny},
		"overridden":            {[]event.Answer{answer("p", event.Overridden, true)}, deny},
		"missed":                {[]event.Answer{answer("p", event.Missed, true)}, nothing},
		"somebody_else's":       {[]event.Answer{answer("q", event.Answered, false)}, nothing},
		"nobody_was_waited_for": {nil, nothing},
	} {
		steps, err := gather(t.Context(), &list{verdict(1, c.answers...)}, "p")
		if err != nil || len(steps) != 1 || steps[0].question.before != c.want {
			t.Errorf("%s: %+v, %v; want %v", name, steps, err, c.want)
		}
	}
}

// TestAQuestionIsAskedOnce: where it was asked last, with the newest answer.
func TestAQuestionIsAskedOnce(t *testing.T) {
	t.Parallel()
	steps, err := gather(t.Context(), &list{
		verdict(1, answer("p", event.Answered, false)), {Kind: event.Exec}, verdict(2), verdict(1, answer("p", event.Answered, true)), {Kind: event.Exit},
	}, "p")
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for _, s := range steps {
		switch {
		case s.question != nil:
			got = append(got, s.question.file.Ino)
		case s.event.Kind == event.Exec:
			got = append(got, 100)
		default:
			got = append(got, 200)
		}
	}
	if want := []uint64{100, 2, 1, 200}; len(got) != 4 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || got[3] != want[3] {
		t.Errorf("got %v, want %v", got, want)
	}
	if steps[2].question.before != allow {
		t.Errorf("it is compared with %v", steps[2].question.before)
	}
}

// TestOnlyTheNewestIsKept, however long the past is.
func TestOnlyTheNewestIsKept(t *testing.T) {
	t.Parallel()
	var l list
	for i := range 10 * maxQuestions {
		l = append(l, verdict(uint64(i)), &event.Event{Kind: event.Exec, Seq: uint64(i)})
	}
	steps, err := gather(t.Context(), &l, "p")
	if err != nil {
		t.Fatal(err)
	}
	questions, events := 0, 0
	for _, s := range steps {
		if s.question != nil {
			questions++
		} else {
			events++
		}
	}
	if questions > maxQuestions || events > maxEvents || questions+events < maxQuestions+maxEvents {
		t.Errorf("%d questions, %d events", questions, events)
	}
	if last := steps[len(steps)-1].event; last == nil || last.Seq != 10*maxQuestions-1 {
		t.Errorf("the newest is %+v", last)
	}
}

// TestManyEventsLeaveTheQuestions: where more happens than is asked, what was asked before is asked all the same.
func TestManyEventsLeaveTheQuestions(t *testing.T) {
	t.Parallel()
	l := list{verdict(1), verdict(2)}
	for i := range 5 * maxEvents {
		l = append(l, &event.Event{Kind: event.Exec, Seq: uint64(i)})
	}
	steps, err := gather(t.Context(), &l, "p")
	if err != nil || len(steps) != maxEvents+2 || steps[0].question == nil || steps[1].question == nil || steps[2].event.Seq != 4*maxEvents {
		t.Errorf("%d steps, %v", len(steps), err)
	}
}

// failing is a Past that cannot be read to its end.
type failing struct{ list }

func (f *failing) Next() (*event.Event, error) {
	if e, err := f.list.Next(); err == nil {
		return e, nil
	}
	return nil, errors.New("a bad disk")
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	t.Parallel()
	if steps, err := gather(t.Context(), &failing{list{verdict(1)}}, "p"); err == nil || len(steps) != 1 {
		t.Errorf("%d steps, %v", len(steps), err)
	}
}
