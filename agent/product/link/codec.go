package link

import (
	"slices"
	"sync"

	"bailey/agent/event"
	productv1 "bailey/api/product/v1"
)

// Codec encodes events and questions for products, once for all of them. The zero value is ready; safe for concurrent
// use; it does not allocate once its pool and the caller's buffer are warm.
type Codec struct {
	trees sync.Pool
}

// AppendEvent appends the payload of e, a bailey.product.v1.Event, to dst.
func (c *Codec) AppendEvent(dst []byte, e *event.Event) []byte {
	t := c.tree()
	defer c.trees.Put(t)
	return appendMessage(dst, t.event(e))
}

// AppendQuestion appends the payload of q, a bailey.product.v1.Question, to dst.
func (c *Codec) AppendQuestion(dst []byte, q *event.Question) []byte {
	t := c.tree()
	defer c.trees.Put(t)
	return appendMessage(dst, t.ask(q))
}

func (c *Codec) tree() *tree {
	if t, ok := c.trees.Get().(*tree); ok {
		return t
	}
	return new(tree)
}

func appendMessage(dst []byte, m message) []byte {
	size := m.SizeVT()
	dst = slices.Grow(dst, size)
	at := len(dst)
	dst = dst[:at+size]
	if _, err := m.MarshalToSizedBufferVT(dst[at:]); err != nil {
		panic("link: encode a payload: " + err.Error()) // the generated code has no way to fail on a buffer of SizeVT bytes
	}
	return dst
}

// EventToProto returns e as a message of its own, which shares e's strings.
func EventToProto(e *event.Event) *productv1.Event { return new(tree).event(e) }

// QuestionToProto returns q as a message of its own, which shares q's strings.
func QuestionToProto(q *event.Question) *productv1.Question { return new(tree).ask(q) }
