package agent

import (
	"errors"
	"fmt"
	"time"

	"bailey/agent/event"
	"bailey/agent/product"
	productv1 "bailey/api/product/v1"
	"bailey/internal/boottime"
)

// resumeRetry is how often Resume is tried on a socket that the product has not read yet. The manager ends the trying.
const resumeRetry = 2 * time.Millisecond

// drainPatience is how long a product that is left to another agent may take to read what was made for it.
const drainPatience = 500 * time.Millisecond

var (
	errNotResumed  = errors.New("the product does not go on with this agent")
	errUnsupported = errors.New("the product does not know how to go on with another agent")
)

// generation makes the ids of this agent's questions higher than those of the agents before it on this machine, whose
// answers may still come. Its unit, 16 µs, is shorter than a question takes, so that no id is ever used twice.
func (a *Agent) generation() uint64 {
	if a.keeper == nil {
		return 0
	}
	return boottime.Now() >> 14
}

// Resume takes over sock, through which another agent spoke with the product, and speaks first.
func (h host) Resume(inst product.Instance, sock int) (product.Session, error) {
	s, err := h.take(inst, sock)
	if err != nil {
		return nil, err
	}
	// It is not this agent's child, and must not be asked about itself all the same.
	if !h.a.processes.Platform(uint32(inst.Init)) {
		if err := h.a.processes.MarkPlatform(uint32(inst.Init)); err != nil {
			return nil, errors.Join(fmt.Errorf("know the product's processes: %w", err), s.conn.Close())
		}
	}
	s.inherited, s.resuming, s.refusal = true, boottime.Now(), errNotResumed
	if err := s.attach(); err != nil { // it is sent nothing before it has subscribed, and that is its reply
		return nil, err
	}
	go s.run()
	return s, nil
}

// sayResume sends Resume as soon as the socket takes it. Its id tells the reply from one that an agent in between did not
// live to read.
func (s *session) sayResume(id uint64, over <-chan struct{}) {
	m := s.agent.welcome(s.inst)
	retry := time.NewTicker(resumeRetry)
	defer retry.Stop()
	for {
		err := s.conn.SendResume(id, m)
		if err == nil {
			return
		}
		if !errors.Is(err, event.ErrFull) {
			_ = s.conn.Close() // Err says that it did not resume
			return
		}
		select {
		case <-over:
			return
		case <-retry.C:
		}
	}
}

// resumed judges a subscription of a product that spoke with another agent before: only the one that replies to Resume
// says where this agent goes on. It reports whether m is to be taken.
func (s *session) resumed(m *productv1.Subscribe) (bool, error) {
	if s.resuming == 0 {
		return true, nil
	}
	if m.GetResumed() != s.resuming {
		return false, nil // it crossed Resume, whose reply says the same
	}
	if err := s.client.Continue(m.GetLastSeq(), m.GetLastQuestionSeq()); err != nil {
		s.refusal = err
		_ = s.conn.Close() // nobody knows what it has seen
		return false, fmt.Errorf("resume: %w", err)
	}
	s.resuming = 0
	return true, nil
}

// unsupported is told what the product does not know.
func (s *session) unsupported(k productv1.FrameKind) {
	if k == productv1.FrameResume && s.resuming != 0 {
		s.refusal = errUnsupported
		_ = s.conn.Close()
	}
}

// Resumable is closed when the product has said that it can go on with another agent, and does with this one.
func (s *session) Resumable() <-chan struct{} { return s.resumable }

// Leave sends what was made for the product and ends the conversation without a word, for another agent to go on with.
func (s *session) Leave() {
	s.client.Drain(drainPatience)
	if err := s.conn.Release(); err != nil {
		s.agent.log.Warn("product cannot be left to another agent", "product", s.inst.Name, "err", err)
		_ = s.conn.Close()
	}
	<-s.done
}
