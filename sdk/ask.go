package sdk

import (
	"fmt"
	"slices"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"

	"golang.org/x/sys/unix"
)

// ask takes a question off the socket and hands it to a worker, or handles it here.
func (s *Session) ask(f wire.Frame) error {
	q := &Question{ID: f.ID, Seq: f.Seq, session: s, epoch: s.epoch.Load(), flags: f.Flags, fd: f.FD}
	q.deadline.Store(f.Deadline)
	if s.product.Workers < 0 {
		return s.askInline(q, f.Payload)
	}
	q.Question = new(productv1.Question)
	if err := q.UnmarshalVTUnsafe(slices.Clone(f.Payload)); err != nil {
		q.closeFile()
		return fmt.Errorf("decode question %d: %w", f.ID, err)
	}
	s.mu.Lock()
	s.asked[q.ID] = q
	s.mu.Unlock()
	select {
	case s.questions <- q:
	case <-s.stopping:
		s.forget(q)
		q.closeFile()
	}
	return nil
}

// askInline handles a question where it was read: its strings lie in the reader's buffer and its messages are recycled.
// Nothing is read meanwhile, so nothing can withdraw it.
func (s *Session) askInline(q *Question, payload []byte) error {
	m := productv1.QuestionFromVTPool()
	defer m.ReturnToVTPool()
	if err := m.UnmarshalVTUnsafe(payload); err != nil {
		q.closeFile()
		return fmt.Errorf("decode question %d: %w", q.ID, err)
	}
	q.Question = m
	s.handle(q)
	return nil
}

// work is one worker.
func (s *Session) work() {
	for q := range s.questions {
		s.handle(q)
	}
}

// handle calls the author's handler and sends the answer. A question that was withdrawn while it waited is not handled.
func (s *Session) handle(q *Question) {
	defer q.closeFile()
	_ = s.guard(func() error {
		defer s.forget(q)
		if q.isWithdrawn() || q.stale() || s.product.OnQuestion == nil {
			return nil
		}
		a := s.product.OnQuestion(questionContext{q}, q)
		if q.stale() {
			return nil
		}
		h := productv1.Header{Kind: productv1.FrameAnswer, Flags: a.flags, ID: q.ID, Seq: q.Seq}
		if err := s.sock.Send(&h, nil, -1, wire.Block); err != nil {
			return fmt.Errorf("answer question %d: %w", q.ID, err) // the reader meets the same end of the socket
		}
		return nil
	})
}

// forget ends the question's context. It comes before the answer is read by anybody who could reuse the id.
func (s *Session) forget(q *Question) {
	if s.product.Workers > 0 {
		s.mu.Lock()
		if s.asked[q.ID] == q {
			delete(s.asked, q.ID)
		}
		s.mu.Unlock()
	}
	q.release()
}

func (q *Question) closeFile() {
	if q.fd >= 0 {
		_ = unix.Close(q.fd) // read-only: closing cannot lose anything
	}
	q.fd = -1
}
