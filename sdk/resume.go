package sdk

import (
	"fmt"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"
)

// otherAuthority is the flag with which a Resume waits in the inbox when the author must be told.
const otherAuthority = 1

// received are the highest numbers of both streams that were taken off the socket, losses included.
type received struct{ event, question uint64 }

// lost notes a loss, whose stream only its payload tells.
func (r *received) lost(payload []byte) error {
	m := new(productv1.Lost)
	if err := m.UnmarshalVT(payload); err != nil {
		return fmt.Errorf("decode lost: %w", err)
	}
	if m.GetStream() == productv1.Lost_questions {
		r.question = max(r.question, m.GetTo())
		return nil
	}
	r.event = max(r.event, m.GetTo())
	return nil
}

// resume goes on with another agent, which took the socket over: what the old one asked needs no answer any more, what it
// told is handled as ever, and the reply says how far that went.
func (s *Session) resume(f wire.Frame) error {
	m := new(productv1.Welcome)
	if err := m.UnmarshalVT(f.Payload); err != nil {
		return fmt.Errorf("decode resume: %w", err)
	}
	if m.GetProtocol() != productv1.Protocol {
		return fmt.Errorf("the agent speaks protocol %d, this product was built for %d", m.GetProtocol(), productv1.Protocol)
	}
	s.welcome.Store(m)
	s.rules.fail(errRuleOver)
	s.epoch.Add(1) // before the contexts end: a handler that returns for that reason takes no other old question
	s.mu.Lock()
	open := make([]*Question, 0, len(s.asked))
	for _, q := range s.asked {
		open = append(open, q)
	}
	clear(s.asked)
	s.mu.Unlock()
	for _, q := range open {
		q.withdraw()
	}
	f.Flags = 0
	if s.Authority() != m.GetAuthority() {
		f.Flags = otherAuthority
		s.setState(&productv1.State{Authority: m.GetAuthority()})
	}
	s.inbox.add(f)

	s.subscribing.Lock()
	defer s.subscribing.Unlock()
	reply := s.subscription.message()
	reply.Resumed, reply.LastSeq, reply.LastQuestionSeq = f.ID, s.received.event, s.received.question
	return s.subscribe(reply)
}

// stale reports whether the agent that asked q is gone, so that nobody would understand the answer.
func (q *Question) stale() bool { return q.epoch != q.session.epoch.Load() }
