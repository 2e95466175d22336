package rehearsal

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"bailey/agent/event"
	"bailey/agent/product"
	"bailey/agent/product/link"
	productv1 "bailey/api/product/v1"
	"bailey/internal/boottime"
)

// Window is how much the release has to do at a time.
const (
	window      = 8    // questions
	eventWindow = 1024 // events that it has not acknowledged
)

// peer speaks with the release as an agent does.
type peer struct {
	welcome func(product.Instance) *productv1.Welcome
	inst    product.Instance
	conn    *link.Conn
	codec   link.Codec
	free    chan struct{} // a token for each question that it may be asked now
	ready   chan struct{} // closed when it has said what it wants
	done    chan struct{} // closed when the conversation is over
	err     error         // valid once done is closed

	scope []string // where it may be asked about opens
	acked atomic.Uint64

	mu        sync.Mutex
	subs      bool // ready is closed
	events    event.KindSet
	questions event.KindSet
	last      uint64 // id
	seq       uint64 // of events
	open      map[uint64]*ask
	said      []*ask // those that were answered
}

// ask is one question that was asked.
type ask struct {
	q    *question
	sent time.Time
	took time.Duration
	deny bool
}

var (
	_ product.Host    = (*peer)(nil)
	_ product.Session = (*peer)(nil)
	_ link.Handler    = (*peer)(nil)
)

func newPeer(welcome func(product.Instance) *productv1.Welcome) *peer {
	p := &peer{
		welcome: welcome, free: make(chan struct{}, window), ready: make(chan struct{}), done: make(chan struct{}), open: map[uint64]*ask{},
	}
	for range window {
		p.free <- struct{}{}
	}
	return p
}

// Connect takes over sock, the agent's end of the release's socket.
func (p *peer) Connect(inst product.Instance, sock int) (product.Session, error) {
	conn, err := link.New(sock, link.Options{Stream: inst.Transport == "stream"})
	if err != nil {
		return nil, fmt.Errorf("take the release's socket: %w", err)
	}
	w := p.welcome(inst)
	p.inst, p.conn, p.scope = inst, conn, w.GetGrants().GetOpenScope()
	if err := conn.SendWelcome(w); err != nil {
		return nil, errors.Join(fmt.Errorf("welcome the release: %w", err), conn.Close())
	}
	go func() {
		defer close(p.done)
		p.err = conn.Run(p)
	}()
	return p, nil
}

// Resume is never called: no trial outlives its agent.
func (p *peer) Resume(product.Instance, int) (product.Session, error) {
	return nil, errors.New("a rehearsal is not resumed")
}

// Stop asks the release to finish by deadline.
func (p *peer) Stop(deadline time.Time) {
	_ = p.conn.SendStop(boottime.Now() + uint64(max(time.Until(deadline), 0))) // one that does not read is ended
}

// Done is closed when the conversation is over.
func (p *peer) Done() <-chan struct{} { return p.done }

// Err says, after Done, why; nil when the release hung up.
func (p *peer) Err() error { return p.err }

// Close ends the conversation.
func (p *peer) Close() {
	_ = p.conn.Close() // what it returns, Err does
	<-p.done
}

// Resumable is never closed.
func (p *peer) Resumable() <-chan struct{} { return nil }

// Leave is Close: no trial outlives its agent.
func (p *peer) Leave() { p.Close() }

// Subscribe takes what the release wants.
func (p *peer) Subscribe(m *productv1.Subscribe) error {
	events, _ := link.KindsFromProto(m.GetEvents())
	questions, _ := link.KindsFromProto(m.GetQuestions())
	p.mu.Lock()
	p.events, p.questions = events&p.inst.Grants.See, questions&p.inst.Grants.Decide
	reply := &productv1.Subscribed{Events: link.KindsToProto(p.events), Questions: link.KindsToProto(p.questions)}
	if !p.subs {
		p.subs = true
		close(p.ready)
	}
	p.mu.Unlock()
	_ = p.conn.SendSubscribed(reply) // one that does not read finds out by what it is sent
	return nil
}

// Answer takes an answer.
func (p *peer) Answer(id uint64, deny, _ bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.open[id]
	if a == nil {
		return fmt.Errorf("answer to question %d, which is not open", id)
	}
	delete(p.open, id)
	a.deny, a.took = deny, time.Since(a.sent)
	p.said = append(p.said, a)
	p.free <- struct{}{} // has room: the question took one
	return nil
}

// Extend grants nothing: the rehearsal's patience is longer than any deadline.
func (p *peer) Extend(uint64, uint64) error { return nil }

// Ack takes note of the release's progress.
func (p *peer) Ack(seq uint64) { p.acked.Store(seq) }

// Finding takes what it reports, which nobody hears.
func (p *peer) Finding(*productv1.Finding) error { return nil }

// InstallRule says that the rule is in force, which it is not: nothing of a rehearsal counts.
func (p *peer) InstallRule(request uint64, m *productv1.RuleInstall) error {
	lease := min(m.GetLease(), uint64(24*time.Hour))
	_ = p.conn.SendRuleStatus(request, &productv1.RuleStatus{Id: m.GetId(), State: "installed", Until: boottime.Now() + lease})
	return nil
}

// RemoveRule says that it is not.
func (p *peer) RemoveRule(request uint64, m *productv1.RuleRemove) error {
	_ = p.conn.SendRuleStatus(request, &productv1.RuleStatus{Id: m.GetId(), State: "removed"})
	return nil
}

// wants returns what the release is subscribed to.
func (p *peer) wants() (events, questions event.KindSet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.events, p.questions
}

// ask sends q with its file. The caller has a token of free.
func (p *peer) ask(q *question, fd int, patience time.Duration) error {
	p.mu.Lock()
	p.last++
	id := p.last
	p.open[id] = &ask{q: q, sent: time.Now()}
	p.mu.Unlock()
	now := boottime.Now()
	e := event.Question{ID: id, Kind: q.kind, Time: now, Process: q.process, File: q.file, FD: fd}
	if q.process != nil {
		e.PID = q.process.Key.PID
	}
	err := p.conn.SendQuestion(id, id, now+uint64(patience), false, q.critical, p.codec.AppendQuestion(nil, &e), fd)
	if err != nil {
		p.mu.Lock()
		delete(p.open, id)
		p.mu.Unlock()
	}
	return err
}

// tell sends an event. Its number is the next one only if it was sent.
func (p *peer) tell(e *event.Event) error {
	_, err := p.conn.SendEvents([]event.Packet{{Seq: p.seq + 1, Payload: p.codec.AppendEvent(nil, e)}})
	if err == nil {
		p.seq++
	}
	return err
}

// oldest returns the question that waits longest.
func (p *peer) oldest() *ask {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first *ask
	for _, a := range p.open {
		if first == nil || a.sent.Before(first.sent) {
			first = a
		}
	}
	return first
}

// answers returns what was answered so far.
func (p *peer) answers() []*ask {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said[:len(p.said):len(p.said)]
}
