package hub

import (
	"sync/atomic"

	"bailey/agent/event"
)

// Why events and questions were lost: the words in Lost frames and in statistics.
const (
	causeFull    = "queue_full"
	causeRestart = "agent_restart" // an earlier agent ended before it had sent them
)

// packet is one encoded event, shared by all queues that hold it.
type packet struct {
	refs atomic.Int32
	b    []byte
}

// maxPooled bounds the buffers that are kept for reuse, so that one huge event does not stay in memory for ever.
const maxPooled = 8 << 10

// drop ends one queue's use of p.
func (h *Hub) drop(p *packet) {
	if p.refs.Add(-1) == 0 && cap(p.b) <= maxPooled {
		h.packets.Put(p)
	}
}

// lost is a range of numbers, both included; from 0 is none.
type lost struct {
	from, to uint64
	cause    string // default causeFull
}

func (l lost) why() string {
	if l.cause == "" {
		return causeFull
	}
	return l.cause
}

// item is an event to send, or the announcement of lost ones in its place.
type item struct {
	seq  uint64
	p    *packet // nil for an announcement
	lost lost
}

// queue is a bounded ring of items that grows as needed. Not safe for concurrent use.
type queue struct {
	ring  []item
	head  int
	n     int
	bytes int
	tail  lost // lost after the last item
}

func (q *queue) push(i item) {
	if q.n == len(q.ring) {
		bigger := make([]item, max(64, 2*len(q.ring)))
		for j := range q.n {
			bigger[j] = q.ring[(q.head+j)%len(q.ring)]
		}
		q.ring, q.head = bigger, 0
	}
	q.ring[(q.head+q.n)%len(q.ring)] = i
	q.n++
	if i.p != nil {
		q.bytes += cap(i.p.b)
	}
}

// add queues an event, behind the announcement of what was lost before it.
func (q *queue) add(seq uint64, p *packet) {
	if q.tail.from != 0 {
		q.push(item{lost: q.tail})
		q.tail = lost{}
	}
	q.push(item{seq: seq, p: p})
}

// lose notes that the event with this number is not queued.
func (q *queue) lose(seq uint64) {
	if q.tail.from == 0 {
		q.tail.from = seq
	}
	q.tail.to = seq
}

// peek returns the i-th item from the front.
func (q *queue) peek(i int) *item { return &q.ring[(q.head+i)%len(q.ring)] }

// skip removes the first n items.
func (q *queue) skip(n int) {
	for range n {
		i := &q.ring[q.head]
		if i.p != nil {
			q.bytes -= cap(i.p.b)
		}
		*i = item{}
		q.head = (q.head + 1) % len(q.ring)
	}
	q.n -= n
}

// keepsTree are the kinds that a product's process tree is made of: they are dropped last.
var keepsTree = event.KindsOf(event.Exec, event.Fork, event.Exit)

// room reports whether an event of this kind may still be queued.
func (h *Hub) room(q *queue, k event.Kind) bool {
	if q.n >= h.cfg.QueueEvents || q.bytes >= h.cfg.QueueBytes {
		return false
	}
	return keepsTree.Has(k) || q.n < h.cfg.QueueEvents/4*3 && q.bytes < h.cfg.QueueBytes/4*3
}
