package event

import "errors"

// Packet is one encoded event on its way to one product.
type Packet struct {
	Seq     uint64 // the product's own contiguous number
	Payload []byte // shared by all products; read-only
}

// ErrFull says that a product's socket takes nothing more now: an event is dropped and announced, a question is a miss.
var ErrFull = errors.New("product's socket is full")
