package hub

import "bailey/agent/event"

// Conn is the transport to one product. No method blocks. SendEvents is called from one goroutine, SendQuestion and
// SendLost for questions one at a time, the others from anywhere, all concurrently.
type Conn interface {
	// SendQuestion sends one question with its descriptor. event.ErrFull says that the socket takes nothing now; any other
	// error that the product is gone. payload is the caller's again when it returns.
	SendQuestion(id, seq, deadline uint64, shadow, critical bool, payload []byte, fd int) error
	// SendEvents sends a batch in order and says how many it took; fewer than all come with an error.
	SendEvents(batch []event.Packet) (sent int, err error)
	SendLost(questions bool, from, to uint64, cause string) error
	SendState(authority, reason string) error
	SendWithdrawn(id uint64) error
}

// Encoder makes payloads. It appends to dst like append, and is called from many goroutines.
type Encoder interface {
	AppendEvent(dst []byte, e *event.Event) []byte
	AppendQuestion(dst []byte, q *event.Question) []byte
}

// Verdicts is the engine that the hub's products answer to.
type Verdicts interface {
	Answer(product int, id uint64, deny, cacheFile bool) error
	Extend(product int, id, deadline uint64) error
	Joined(product int, name string)
	Renamed(product int, name string) // it goes on under another name; an empty one says that nobody has the number any more
	Gone(product int)
	Brake(product int) // its denies stop to count, also on questions in flight
	Invalidate(cause string) error
}
