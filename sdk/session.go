package sdk

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"
)

// Session is the conversation with the agent. Safe for concurrent use.
type Session struct {
	product Product
	sock    *wire.Socket
	ctx     context.Context // ends when the product is to stop
	cancel  context.CancelCauseFunc
	welcome atomic.Pointer[productv1.Welcome] // of the agent that it speaks with now

	subscribing  sync.Mutex   // subscriptions are sent in the order in which they were made
	subscription Subscription // the last one sent

	epoch    atomic.Uint64 // counts the agents that it spoke with
	received received      // what was taken off the socket; the reader's own

	mu        sync.Mutex
	authority string
	reason    string
	refused   []string
	asked     map[uint64]*Question // delivered, not yet answered
	stopAt    time.Time            // zero until stop
	failure   error                // the first reason to stop that is an error

	stopping  chan struct{} // closed by the first stop
	questions chan *Question
	inbox     inbox
	rules     ruleCalls
}

func newSession(p Product, sock *wire.Socket) *Session {
	s := &Session{
		product: p, sock: sock, asked: make(map[uint64]*Question), stopping: make(chan struct{}),
		questions: make(chan *Question, 64), // beyond it the socket is the queue, and then the agent counts a miss
	}
	s.inbox.wake = make(chan struct{}, 1)
	return s
}

// Name returns the product's name as installed.
func (s *Session) Name() string { return s.welcome.Load().GetProduct() }

// Release returns the product's version as installed.
func (s *Session) Release() string { return s.welcome.Load().GetRelease() }

// AgentVersion returns the agent's version.
func (s *Session) AgentVersion() string { return s.welcome.Load().GetAgentVersion() }

// BootID names the machine's uptime: times since boot compare only within one.
func (s *Session) BootID() string { return s.welcome.Load().GetBootId() }

// Granted returns what the operator lets this product see, decide and do. Do not change it.
func (s *Session) Granted() *Grants { return s.welcome.Load().GetGrants() }

// Settings returns the manifest's settings as the operator left them.
func (s *Session) Settings() map[string]string { return maps.Clone(s.welcome.Load().GetSettings()) }

// Budget returns how long the agent waits for an answer to a question of the kind; 0 when it did not say.
func (s *Session) Budget(k Kind) time.Duration {
	return time.Duration(s.welcome.Load().GetDeadlines()[k.String()])
}

// Authority returns live, shadow, degraded, braked or off.
func (s *Session) Authority() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.authority
}

// Reason returns why the authority is what it is; empty at first.
func (s *Session) Reason() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// Refused returns what the agent refused of the subscription, and why.
func (s *Session) Refused() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// Subscription says what a product wants to be told and asked.
type Subscription struct {
	Events, Questions []Kind
	MuteExecutables   []string
	MutePaths         []string
	MutePathsInvert   bool
}

// Subscribe replaces the subscription that Product started with. The agent's reply goes to Refused.
func (s *Session) Subscribe(sub Subscription) error {
	s.subscribing.Lock()
	defer s.subscribing.Unlock()
	s.subscription = sub
	return s.subscribe(sub.message())
}

func (s Subscription) message() *productv1.Subscribe {
	return &productv1.Subscribe{
		Events: s.Events, Questions: s.Questions, MuteExecutables: s.MuteExecutables,
		MutePaths: s.MutePaths, MutePathsInvert: s.MutePathsInvert, Sdk: "bailey-go/1", Resume: true,
	}
}

func (s *Session) subscribe(m *productv1.Subscribe) error {
	b, err := m.MarshalVT()
	if err != nil {
		return fmt.Errorf("encode subscription: %w", err)
	}
	if err := s.sock.Send(&productv1.Header{Kind: productv1.FrameSubscribe}, b, -1, wire.Block); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return nil
}

func (s *Session) setState(m *productv1.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.authority, s.reason = strings.Clone(m.GetAuthority()), strings.Clone(m.GetReason())
}

func (s *Session) setSubscribed(m *productv1.Subscribed) {
	s.mu.Lock()
	s.refused = m.GetRefused()
	s.mu.Unlock()
	for _, r := range m.GetRefused() {
		fmt.Fprintf(s.product.Stderr, "subscription refused: %s\n", r)
	}
}

// stop begins the end: the handlers' contexts end when the time is up, and the reader returns. The first error is kept.
func (s *Session) stop(err error, grace time.Duration) {
	s.mu.Lock()
	if s.stopAt.IsZero() {
		s.stopAt = time.Now().Add(grace)
		close(s.stopping)
	}
	if s.failure == nil {
		s.failure = err
	}
	s.mu.Unlock()
	s.sock.CloseRead()
}
