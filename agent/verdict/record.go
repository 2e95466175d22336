package verdict

import "bailey/agent/event"

// outcomeLocked makes the event that says what was asked, what everyone said, and what was decided. Caller holds s.mu.
func (e *Engine) outcomeLocked(s *slot) *event.Event {
	b := &s.ballot
	all := b.live | b.shadow
	detail := &event.VerdictDetail{
		QuestionID: s.id, Asked: s.kind, File: s.file, Decision: s.decision, Latency: s.answered - s.read,
		Answers: make([]event.Answer, 0, all.Len()),
	}
	for ps := all; ps != 0; ps &= ps - 1 {
		i := ps.First()
		p := event.ProductBit(i)
		a := event.Answer{Product: s.voters.Names[i], Shadow: b.shadow&p != 0, Outcome: b.outcome(p), Allow: b.allowed(p)}
		if b.answered&p != 0 {
			a.Latency = s.latency[i]
		}
		detail.Answers = append(detail.Answers, a)
	}
	return &event.Event{Kind: event.Verdict, Time: s.answered, Process: s.process, Verdict: detail}
}

// recordBare makes the event of a deny for which no product was asked. Caller still holds q.
func (e *Engine) recordBare(q *event.Question, d event.Decision, now uint64) {
	wanted, notable := e.cfg.Wanted(), e.notable(d)
	if !wanted && !notable {
		return
	}
	e.tellOutcome(&event.Event{Kind: event.Verdict, Time: now, Process: q.Process, Verdict: &event.VerdictDetail{
		QuestionID: q.ID, Asked: q.Kind, File: q.File, Decision: d, Latency: now - q.Time,
	}}, wanted, notable)
}

// notable reports whether somebody wants to know of d whatever else is wanted.
func (e *Engine) notable(d event.Decision) bool { return !d.Allow && e.cfg.Notable != nil }

func (e *Engine) tellOutcome(ev *event.Event, wanted, notable bool) {
	if wanted {
		e.cfg.Outcome(ev)
	}
	if notable {
		e.cfg.Notable(ev)
	}
}
