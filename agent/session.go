package agent

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"bailey/agent/config"
	"bailey/agent/event"
	"bailey/agent/hub"
	"bailey/agent/product"
	"bailey/agent/product/link"
	productv1 "bailey/api/product/v1"
	"bailey/internal/boottime"
)

// eventWindow is how many events a product is sent before it acknowledged the first of them.
const eventWindow = 8192

// host joins a started product's socket to the hub.
type host struct{ a *Agent }

var _ product.Host = host{}

// Connect takes over sock, the agent's end of the product's socket, and speaks first.
func (h host) Connect(inst product.Instance, sock int) (product.Session, error) {
	s, err := h.take(inst, sock)
	if err != nil {
		return nil, err
	}
	// The welcome is the first frame: nothing else may be sent before it, so nobody may know of the product yet.
	if err := s.conn.SendWelcome(h.a.welcome(inst)); err != nil {
		return nil, errors.Join(fmt.Errorf("welcome the product: %w", err), s.conn.Close())
	}
	if err := s.attach(); err != nil {
		return nil, err
	}
	go s.run()
	return s, nil
}

func (h host) take(inst product.Instance, sock int) (*session, error) {
	s := &session{agent: h.a, inst: inst, done: make(chan struct{}), resumable: make(chan struct{}), rules: make(chan ruleRequest, rulesWaiting)}
	conn, err := link.New(sock, link.Options{Stream: inst.Transport == "stream", OnFault: s.fault, OnUnsupported: s.unsupported})
	if err != nil {
		return nil, fmt.Errorf("take the product's socket: %w", err)
	}
	s.conn = conn
	return s, nil
}

// attach makes the product known to the hub.
func (s *session) attach() (err error) {
	a := s.agent
	m := member(s.inst, a.scope())
	if s.inst.Beside {
		m.Name, m.Beside, m.Shadow = s.inst.Name+product.Next, s.inst.Name, true
	} else {
		s.govern()
	}
	if s.client, err = a.hub.Attach(m, s.conn); err != nil {
		return errors.Join(fmt.Errorf("attach the product: %w", err), s.conn.Close())
	}
	a.ready.begin(s.client)
	a.daemons.set(s.client, s.inst.Grants.Daemons)
	return nil
}

// govern makes the product's limits those of this release.
func (s *session) govern() {
	s.agent.brake.Joined(s.inst.Name, s.inst.Release, s.inst.Grants.Rates.PackageFiles, s.inst.Grants.Rates.Files)
	s.agent.grantRules(s.inst)
}

// promote moves authority from one session of a product to another of it, in one step; from is nil where there is none.
func (a *Agent) promote(to, from product.Session) error {
	next, ok := to.(*session)
	if !ok {
		return errors.New("promote: it is no session of this agent")
	}
	var before *hub.Client
	if old, ok := from.(*session); ok {
		before = old.client
	}
	next.govern()
	return a.hub.Promote(next.client, member(next.inst, a.scope()), before, next.inst.Name+product.Before)
}

// member is a product as the hub knows it: its grant, and of its open scope what the operator's configuration admits.
func member(inst product.Instance, scope []string) hub.Member {
	g := inst.Grants
	return hub.Member{
		Name: inst.Name, Release: inst.Release, Shadow: !g.Live, See: g.See, Decide: g.Decide,
		Deny: g.Deny, DenyCritical: g.DenyCritical, MissDenies: g.OnMissDeny, OpenScope: intersect(g.OpenScope, scope),
		EventsMade: inst.EventsMade, QuestionsMade: inst.QuestionsMade,
	}
}

func (a *Agent) welcome(inst product.Instance) *productv1.Welcome {
	g := inst.Grants
	q := a.cfg.Questions
	budget := func(d time.Duration) uint64 { return uint64(d) * config.Budget / 100 }
	authority := "live"
	if !g.Live || inst.Beside {
		authority = "shadow"
	}
	return &productv1.Welcome{
		Protocol: productv1.Protocol, AgentVersion: a.build.Version, Product: inst.Name, Release: inst.Release,
		Authority: authority, BootId: a.bootID,
		Grants: &productv1.Grants{
			See: kindWords(g.See), Decide: kindWords(g.Decide), OpenScope: intersect(g.OpenScope, a.scope()),
			Deny: g.Deny, DenyCritical: g.DenyCritical, Rules: g.Rules,
		},
		Deadlines: map[string]uint64{
			event.Exec.String(): budget(q.ExecDeadline.Duration), event.Open.String(): budget(q.OpenDeadline.Duration),
		},
		Settings: inst.Settings, EventWindow: eventWindow,
	}
}

func kindWords(s event.KindSet) []string {
	var out []string
	for _, k := range s.List() {
		out = append(out, k.String())
	}
	return out
}

// session is one conversation with one running product.
type session struct {
	agent  *Agent
	inst   product.Instance
	conn   *link.Conn
	client *hub.Client
	done   chan struct{}
	err    error // valid once done is closed

	resumable chan struct{} // closed when the product has said that it can go on with another agent
	said      bool          // resumable is closed; the reader's own
	inherited bool          // it spoke with another agent before
	resuming  uint64        // the id of the Resume that it has not replied to yet, or 0; the reader's own
	refusal   error         // why it does not; the reader's own

	rules chan ruleRequest // what it wants of its rules
}

var (
	_ product.Session = (*session)(nil)
	_ link.Handler    = (*session)(nil)
)

// run reads what the product says until it is gone, and then takes it out of the electorate.
func (s *session) run() {
	defer close(s.done)
	over := make(chan struct{})
	go s.serveRules(over) // not waited for: what a rule names may be on a filesystem that never answers
	var saying sync.WaitGroup
	if id := s.resuming; id != 0 {
		saying.Go(func() { s.sayResume(id, over) })
	}
	s.err = s.conn.Run(s)
	close(over)
	saying.Wait()
	s.agent.ready.end(s.client)
	s.agent.hub.Detach(s.client)
	s.agent.daemons.set(s.client, nil)
	if err := s.conn.Close(); s.err == nil {
		s.err = err
	}
	if s.err == nil && s.resuming != 0 {
		s.err = s.refusal
	}
}

// Stop asks the product to finish by deadline.
func (s *session) Stop(deadline time.Time) {
	at := boottime.Now() + uint64(max(time.Until(deadline), 0))
	if err := s.conn.SendStop(at); err != nil {
		s.agent.log.Info("product could not be asked to stop; it is ended", "product", s.inst.Name, "err", err)
	}
}

// Done is closed when the conversation is over.
func (s *session) Done() <-chan struct{} { return s.done }

// Err says why it is over: nil when the product closed its socket or Close was called.
func (s *session) Err() error {
	<-s.done
	return s.err
}

// Close ends the conversation and waits until the product is out of the electorate.
func (s *session) Close() {
	_ = s.conn.Close() // what it returns, Err does
	<-s.done
}

// fault counts and logs a breach of the protocol.
func (s *session) fault(err error) {
	if s.client != nil {
		s.client.Fault(err)
	}
}

// Answer passes the product's word on.
func (s *session) Answer(id uint64, deny, cacheFile bool) error {
	if s.inherited && s.agent.engine.Earlier(id) {
		return nil // it crossed the end of the agent that asked
	}
	return s.client.Answer(id, deny, cacheFile)
}

// Extend passes the product's wish on.
func (s *session) Extend(id, deadline uint64) error {
	if s.inherited && s.agent.engine.Earlier(id) {
		return nil
	}
	return s.client.Extend(id, deadline)
}

// Ack passes the product's progress on.
func (s *session) Ack(seq uint64) { s.client.Ack(seq) }

// Subscribe replaces the subscription and tells the product what came of it.
func (s *session) Subscribe(m *productv1.Subscribe) error {
	if resumed, err := s.resumed(m); !resumed || err != nil {
		return err
	}
	events, unknown := link.KindsFromProto(m.GetEvents())
	questions, more := link.KindsFromProto(m.GetQuestions())
	accepted, asked, refused := s.client.Subscribe(hub.Subscription{
		Events: events, Questions: questions, MuteExecutables: m.GetMuteExecutables(),
		MutePaths: m.GetMutePaths(), InvertPaths: m.GetMutePathsInvert(),
	})
	s.agent.ready.ready(s.client) // the hub has told the sensors
	if asked.Has(event.Open) {
		refused = append(refused, outside(s.inst.Grants.OpenScope, s.agent.scope())...)
	}
	for _, k := range append(unknown, more...) {
		refused = append(refused, fmt.Sprintf("kind %d: this agent does not know it", k))
	}
	say := s.agent.log.Info
	if len(refused) > 0 {
		say = s.agent.log.Warn
	}
	say("product subscribed", "product", s.client.Name(), "events", kindWords(accepted), "questions", kindWords(asked),
		"refused", refused, "sdk", m.GetSdk())
	// A product that does not read its reply finds out by what it is sent.
	_ = s.conn.SendSubscribed(&productv1.Subscribed{
		Events: link.KindsToProto(accepted), Questions: link.KindsToProto(asked), Refused: refused,
	})
	if m.GetResume() && !s.said {
		s.said = true
		close(s.resumable)
	}
	return nil
}

// Finding publishes what the product detected.
func (s *session) Finding(m *productv1.Finding) error {
	s.client.Finding(link.FindingFromProto(s.inst.Name, m))
	return nil
}
