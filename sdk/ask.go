package sdk

import (
	"fmt"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"

	"golang.org/x/sys/unix"
)

// ask takes a question off the socket and hands it to a worker, or handles it here.
func (s *Session) ask(f wire.Frame) error {
	q := &Question{
		Question: new(productv1.Question), ID: f.ID, Seq: f.Seq, session: s, flags: f.Flags, fd: f.FD,
		buf: append([]byte(nil), f.Payload...),
	}
	q.deadline.Store(f.Deadline)
	if err := q.UnmarshalVTUnsafe(q.buf); err != nil {
		q.closeFile()
		return fmt.Errorf("decode question %d: %w", f.ID, err)
	}
	s.mu.Lock()
	s.asked[q.ID] = q
	s.mu.Unlock()
	if s.product.Workers < 0 {
		s.handle(q)
		return nil
	}
	s.questions <- q
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
		if q.isWithdrawn() || s.product.OnQuestion == nil {
			return nil
		}
		a := s.product.OnQuestion(questionContext{q}, q)
		h := productv1.Header{Kind: productv1.FrameAnswer, Flags: a.flags, ID: q.ID, Seq: q.Seq}
		if err := s.sock.Send(&h, nil, -1, wire.Block); err != nil {
			return fmt.Errorf("answer question %d: %w", q.ID, err) // the reader meets the same end of the socket
		}
		return nil
	})
}

// forget ends the question's context. It comes before the answer is read by anybody who could reuse the id.
func (s *Session) forget(q *Question) {
	s.mu.Lock()
	delete(s.asked, q.ID)
	s.mu.Unlock()
	q.release()
}

func (q *Question) closeFile() {
	if q.fd >= 0 {
		_ = unix.Close(q.fd) // read-only: closing cannot lose anything
	}
	q.fd = -1
}
