package hub

import (
	"errors"
	"time"

	"bailey/agent/event"
)

// How much goes to the transport at once, and how often a full socket is tried again when no Ack comes.
const (
	batchEvents = 256
	firstRetry  = time.Millisecond
	lastRetry   = 16 * time.Millisecond
)

// What the window charges beside payload. Events and questions share a socket's buffer, in which a datagram weighs about
// 1 KiB more than its content; the window must leave room for questions.
const (
	frameOverhead    = 32
	datagramOverhead = 1 << 10
)

// flush sends what is queued until the client is closed. It is the only goroutine that sends this product events.
func (c *Client) flush() {
	defer close(c.flushed)
	defer c.discard()
	f := flusher{c: c, batch: make([]event.Packet, 0, batchEvents)}
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	wait := firstRetry
	var l lag
	look := time.NewTimer(time.Hour)
	defer look.Stop()
	for {
		err := f.drain()
		var again, later <-chan time.Time
		if after := c.judgeLag(&l); after != 0 {
			look.Reset(after)
			later = look.C
		}
		switch {
		case err == nil:
			wait = firstRetry
		case errors.Is(err, event.ErrFull):
			retry.Reset(wait)
			again = retry.C
			wait = min(2*wait, lastRetry)
		default:
			// The product is gone; its supervisor notices by the same socket and detaches it.
			<-c.closing
			return
		}
		select {
		case <-c.closing:
			return
		case <-c.wake:
		case <-again:
		case <-later:
		}
	}
}

// discard gives back what a closed client did not send.
func (c *Client) discard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.queue.n {
		if p := c.queue.peek(i).p; p != nil {
			c.hub.drop(p)
		}
	}
	c.queue = queue{}
}

type flusher struct {
	c     *Client
	batch []event.Packet
	held  [batchEvents]*packet
}

// drain sends until nothing is left that may be sent now.
func (f *flusher) drain() error {
	c := f.c
	for {
		if err := c.tellNews(); err != nil {
			return err
		}
		gap, n := f.take()
		if gap.from != 0 {
			if err := c.conn.SendLost(false, gap.from, gap.to, gap.why()); err != nil {
				return err
			}
			c.mu.Lock()
			c.queue.skip(1)
			c.inflight.top = max(c.inflight.top, gap.to) // a product may acknowledge that it knows
			c.mu.Unlock()
			continue
		}
		if n == 0 {
			return nil
		}
		sent, err := c.conn.SendEvents(f.batch)
		f.settle(sent)
		if err != nil {
			return err
		}
		if sent < n {
			return event.ErrFull
		}
	}
}

// tellNews sends what does not belong to the stream of events: authority, and lost questions.
func (c *Client) tellNews() error {
	c.asking.Lock()
	defer c.asking.Unlock()
	if c.news != nil {
		if err := c.conn.SendState(c.news.authority, c.news.reason); err != nil {
			return err
		}
		c.news = nil
	}
	return c.announceLocked()
}

// take fills the batch with events that may be sent now, or returns the gap that is next.
func (f *flusher) take() (gap lost, n int) {
	c := f.c
	f.batch = f.batch[:0]
	c.mu.Lock()
	defer c.mu.Unlock()
	q := &c.queue
	if q.n == 0 && q.tail.from != 0 {
		q.push(item{lost: q.tail})
		q.tail = lost{}
	}
	for n < q.n && n < batchEvents {
		i := q.peek(n)
		if i.p == nil {
			if n == 0 {
				gap = i.lost
			}
			break
		}
		size := len(i.p.b) + frameOverhead
		if n == 0 {
			size += datagramOverhead
		}
		if !c.inflight.room(c.hub.cfg.Window, c.hub.cfg.WindowBytes, size) {
			break
		}
		// Before it is sent: its Ack may come before SendEvents returns.
		c.inflight.add(i.seq, size)
		f.batch = append(f.batch, event.Packet{Seq: i.seq, Payload: i.p.b})
		f.held[n] = i.p
		n++
	}
	return gap, n
}

// settle removes what was sent from the queue.
func (f *flusher) settle(sent int) {
	c := f.c
	c.mu.Lock()
	for _, p := range f.batch[sent:] {
		c.inflight.cancel(p.Seq)
	}
	c.queue.skip(sent)
	c.count.events.Add(uint64(sent))
	c.mu.Unlock()
	for i := range f.batch {
		if i < sent {
			c.hub.drop(f.held[i])
		}
		f.held[i] = nil
	}
	clear(f.batch)
}

// inflight is the window: what was sent and not acknowledged. Not safe for concurrent use.
type inflight struct {
	ring  []flight
	head  int
	n     int
	bytes int
	top   uint64 // highest number ever given to the transport
	acked uint64
}

type flight struct {
	seq  uint64
	size int
}

// room reports whether size more bytes may be sent. One event may always be under way.
func (w *inflight) room(events, bytes, size int) bool {
	return w.n < events && (w.n == 0 || w.bytes+size <= bytes)
}

func (w *inflight) add(seq uint64, size int) {
	if w.n == len(w.ring) {
		bigger := make([]flight, max(64, 2*len(w.ring)))
		for i := range w.n {
			bigger[i] = w.ring[(w.head+i)%len(w.ring)]
		}
		w.ring, w.head = bigger, 0
	}
	w.ring[(w.head+w.n)%len(w.ring)] = flight{seq, size}
	w.n++
	w.bytes += size
	w.top = max(w.top, seq)
}

// cancel takes back the event that was added last among those not cancelled, if it was not (wrongly) acknowledged.
func (w *inflight) cancel(seq uint64) {
	for w.n > 0 {
		last := w.ring[(w.head+w.n-1)%len(w.ring)]
		if last.seq < seq {
			return
		}
		w.n--
		w.bytes -= last.size
	}
}

// ack opens the window up to seq and reports whether seq was ever sent.
func (w *inflight) ack(seq uint64) bool {
	if seq > w.top {
		return false
	}
	w.acked = max(w.acked, seq)
	for w.n > 0 {
		first := w.ring[w.head]
		if first.seq > seq {
			return true
		}
		w.head = (w.head + 1) % len(w.ring)
		w.n--
		w.bytes -= first.size
	}
	return true
}
