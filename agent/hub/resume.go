package hub

import (
	"fmt"
	"time"
)

// inherit makes a new client's counts go on where an earlier agent's ended.
func (c *Client) inherit(m *Member) {
	c.events, c.questions = m.EventsMade, m.QuestionsMade
	if c.events != nil {
		c.seq = c.events.Load()
		c.inherited = c.seq
		c.inflight.top = c.seq // acknowledgements of what the earlier agent sent may still come
	}
	if c.questions != nil {
		c.questionSeq = c.questions.Load()
	}
}

// forgetTally ends the use of memory that is not the hub's.
func (c *Client) forgetTally() {
	c.asking.Lock()
	c.questions = nil
	c.asking.Unlock()
	c.mu.Lock()
	c.events = nil
	c.mu.Unlock()
}

// Continue says how far a product that an earlier agent had attached has received that agent's events and questions. What
// was made for it beyond that is lost, and will be the first that it is told. It must come before the first Subscribe. An
// error is a protocol fault of the product: it claims what nobody made.
func (c *Client) Continue(event, question uint64) error {
	c.asking.Lock()
	defer c.asking.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if event > c.inherited || question > c.questionSeq {
		return fmt.Errorf("continue: it received event %d and question %d; those made were %d and %d", event, question, c.inherited, c.questionSeq)
	}
	if event < c.inherited {
		c.queue.push(item{lost: lost{from: event + 1, to: c.inherited, cause: causeRestart}})
		c.count.dropped.Add(c.inherited - event)
	}
	if question < c.questionSeq {
		c.questionLost = lost{from: question + 1, to: c.questionSeq, cause: causeRestart}
		c.count.unsent.Add(c.questionSeq - question)
	}
	c.inherited = event
	c.kick()
	return nil
}

// drainPoll is how often Drain looks.
const drainPoll = time.Millisecond

// Drain waits until everything that was made for the product is sent, or patience is over, or the product is detached. It
// reports whether all is sent.
func (c *Client) Drain(patience time.Duration) bool {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		if c.drained() {
			return true
		}
		select {
		case <-c.closing:
			return false
		case <-deadline.C:
			return c.drained()
		case <-time.After(drainPoll):
		}
	}
}

func (c *Client) drained() bool {
	c.asking.Lock()
	told := c.questionLost.from == 0
	c.asking.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return told && c.queue.n == 0 && c.queue.tail.from == 0
}
