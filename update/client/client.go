package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"bailey/internal/window"
	"bailey/update/release"
	"bailey/update/trust"

	"golang.org/x/sys/unix"
)

// Repository is where releases come from; *trust.Client through Trusted.
type Repository interface {
	// Look verifies what there is now. The View is to be closed.
	Look(ctx context.Context) (View, error)
	// Hurry has the next Look ask those too that did not answer a moment ago.
	Hurry()
}

// View is what a repository said at one moment.
type View interface {
	Plan(ctx context.Context, streams ...release.Stream) (trust.Plan, error)
	Download(ctx context.Context, t trust.Target, dir string) (string, error)
	Close()
}

// Trusted is a Repository.
type Trusted struct{ *trust.Client }

// Look is Refresh.
func (t Trusted) Look(ctx context.Context) (View, error) {
	v, err := t.Refresh(ctx)
	if err != nil {
		return nil, err // not a View that holds nil
	}
	return v, nil
}

// ErrNotInstalled says that the host has no such product.
var ErrNotInstalled = errors.New("it is not installed")

// ErrBusy says that the host does something of the kind already.
var ErrBusy = errors.New("busy")

// ErrAlone says that a release cannot run beside the one in force: it takes its place by a restart of the product.
var ErrAlone = errors.New("it takes the place of the release before by a restart")

// ErrOff says that the host runs no products for now, so that nothing can be said about one.
var ErrOff = errors.New("no product runs now")

// Host runs the machine's products. Its methods are called from several goroutines; each returns when ctx ends.
type Host interface {
	// Installed returns what is installed of a product, or ErrNotInstalled.
	Installed(product string) (Installed, error)
	// Plan says what a folder that was offered as the product is, and what it asks for beyond what is granted.
	Plan(ctx context.Context, product, folder string) (Plan, error)
	// Rehearse tries a product folder without installing it.
	Rehearse(ctx context.Context, product, folder, name string) (Rehearsal, error)
	// Shadow runs a product folder beside what is in force, with no authority, and returns what says how it does there, which is called often. What
	// runs so already is no error. The error is ErrAlone where it cannot run beside.
	Shadow(ctx context.Context, product, folder, name string) (look func() Beside, err error)
	// Settle ends what runs beside what is in force for the sake of name, be it name or the release before it.
	Settle(ctx context.Context, product, name string) error
	// Install puts a product folder in force, with all that it asks for, and returns when it runs: by exchanging it with what is in force, where it runs
	// beside that. What is in force already is not an error.
	Install(ctx context.Context, product, folder, name string) error
	// Back puts the release before in force again, if name is in force now.
	Back(ctx context.Context, product, name string) error
	// Watch returns a function that says what harm the release has done since, empty if none. It is called often. Its error is ErrOff while
	// no product runs.
	Watch(product, name string) (harm func() string, err error)
}

// Installed is a product as it is in force.
type Installed struct {
	Name    string // the host's, for this very content
	Version string // its own word
	Folder  string // not to be changed
	Why     string // it is this one, if there is something to say
}

// Plan is what a product folder is.
type Plan struct {
	Product string
	Version string
	Name    string   // the host's for this very content
	Asks    []string // beyond what is granted
}

// Rehearsal is what came of trying a release.
type Rehearsal struct {
	Passed  bool
	Reasons []string
	Report  json.RawMessage
}

// Beside is a release that runs beside the one in force.
type Beside struct {
	Gone   bool // it was ended for another reason than its own: it can be started again
	Ready  bool // it has said what it wants, and is asked
	Harm   string
	Report func() json.RawMessage // made when it is wanted: a look is often, and that is not
}

// Config is what a Client works with. Dir, Repository, Host and Streams have no default.
type Config struct {
	Dir        string
	Repository Repository
	Partial    string // where the repository has downloads that are not whole; default: here
	Host       Host
	Streams    []release.Stream
	Platform   release.Version // Bailey's own; zero: what requires a platform is not installed
	OS         string          // os/arch of this machine

	Interval time.Duration               // between two looks; default 5 min
	Lease    time.Duration               // how old a look may be when a release gets its say; default 1 h
	Disk     int64                       // bytes that downloads, what is staged and what deltas begin at may have; 0: no limit
	Settings                             // of every stream
	For      map[release.Stream]Settings // of those that have their own
	Now      func() time.Time
	OnMove   func(Move) // told of every move, in order for each stream; may be nil
	OnLook   func(Look) // told what came of every look; may be nil
}

// Settings are how the releases of a stream are taken.
type Settings struct {
	Shadow  time.Duration // how long a release runs beside the one in force before it takes its place
	Watch   time.Duration // how long a release is watched unless it says so itself; default 10 min
	Defer   time.Duration // how long a release must have been offered
	Manual  bool          // every release waits for the operator's word
	Lag     int           // how many releases to stay behind the newest
	Windows window.Week   // when a release may be put in force
	Urgent  bool          // an urgent one may always
}

const (
	watchPoll   = 25 * time.Millisecond // how often a release that is watched is looked at
	firstRetry  = 10 * time.Second
	lastRetry   = 15 * time.Minute
	longestWait = lastRetry + lastRetry/5 // with its jitter
	maxAttempts = 12
	// A stream that goes wrong so often in a day is left at its last good release until the operator has looked.
	maxFailures = 3
	failuresFor = 24 * time.Hour
)

// Client brings releases in. Safe for concurrent use after New.
type Client struct {
	cfg     Config
	streams []*stream
	look    chan struct{} // holds one token when a look is wanted
	history history

	mu     sync.Mutex
	looked Look
}

// Look is what came of the newest look at the repository.
type Look struct {
	At      time.Time `json:"at,omitzero"`       // when one succeeded
	Tried   time.Time `json:"tried,omitzero"`    // when one was tried
	Problem string    `json:"problem,omitempty"` // of the newest try
	Failed  int       `json:"failed,omitempty"`  // tries in a row
	Expires time.Time `json:"expires,omitzero"`  // when what was seen stops being news
}

// stream is one stream with what is known of it.
type stream struct {
	id       release.Stream
	settings Settings
	wake     chan struct{}

	mu      sync.Mutex
	record  Record
	offers  []trust.Offer // of the newest look
	policy  release.Policy
	looked  time.Time     // when the offers were heard
	judged  time.Time     // the time they were judged by: never before what was signed
	problem string        // why the newest look at the repository says nothing of this stream
	why     string        // why no offer is taken
	harm    func() string // of the release that is watched
	beside  func() Beside // of the release that runs beside the one in force
	around  bool          // something may run beside it
}

// New reads what is known of the streams.
func New(cfg Config) (*Client, error) {
	if cfg.Dir == "" || cfg.Repository == nil || cfg.Host == nil || len(cfg.Streams) == 0 {
		return nil, errors.New("make the update client: a directory, a repository, a host and streams are needed")
	}
	cfg.Partial = cmp.Or(cfg.Partial, filepath.Join(cfg.Dir, downloadsDir))
	cfg.Interval, cfg.Lease = cmp.Or(cfg.Interval, 5*time.Minute), cmp.Or(cfg.Lease, time.Hour)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Client{cfg: cfg, look: make(chan struct{}, 1), history: history{path: filepath.Join(cfg.Dir, historyFile)}}
	for _, d := range []string{"", streamsDir, stagedDir, basesDir, downloadsDir} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("make the update client: %w", err)
		}
	}
	seen := map[string]release.Stream{}
	for _, id := range cfg.Streams {
		if err := id.Check(); err != nil {
			return nil, fmt.Errorf("make the update client: %w", err)
		}
		if other, ok := seen[id.Product]; ok && other.Vendor != id.Vendor {
			return nil, fmt.Errorf("make the update client: %s and %s are of one product's name and two vendors", other, id)
		}
		seen[id.Product] = id
		s := &stream{id: id, wake: make(chan struct{}, 1), settings: cfg.Settings}
		if own, ok := cfg.For[id]; ok {
			s.settings = own
		}
		s.settings.Watch = cmp.Or(s.settings.Watch, 10*time.Minute)
		var err error
		if s.record, err = c.read(id); err != nil {
			return nil, fmt.Errorf("make the update client: %w", err)
		}
		s.around = s.record.Current != nil
		s.record.woken(cfg.Now())
		if u := s.record.Current; u != nil && u.State.Ended() {
			c.tidy(s)
		}
		c.streams = append(c.streams, s)
	}
	return c, nil
}

// Run looks at the repository every Interval and takes every update as far as it goes, until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for _, s := range c.streams {
		s.mu.Lock()
		c.wentBack(s)
		s.mu.Unlock()
		all.Go(func() { c.follow(ctx, s) })
	}
	for {
		c.Refresh(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.rest()):
		case <-c.look:
		}
	}
}

// rest is how long Run rests after a look: no longer than until a download that failed is due again.
func (c *Client) rest() time.Duration {
	if n := c.Looked().Failed; n > 0 { // at a boot the network comes later
		return jitter(trust.Rest(n))
	}
	wait, now := c.cfg.Interval, c.cfg.Now()
	for _, s := range c.streams {
		s.mu.Lock()
		if u := s.record.Current; u != nil && u.State == Fetch && u.Next.After(now) {
			wait = min(wait, u.Next.Sub(now))
		}
		s.mu.Unlock()
	}
	return wait
}

// Check makes Run look at the repository now, also at mirrors that would be left alone for a while.
func (c *Client) Check() {
	c.cfg.Repository.Hurry()
	poke(c.look)
}

// lookSoon makes Run look at the repository now, unless it does so again as soon as is decent anyway.
func (c *Client) lookSoon() {
	if c.Looked().Failed == 0 {
		poke(c.look)
	}
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // it is going to look anyway
	}
}

// follow takes one stream's updates as far as they go, until ctx ends.
func (c *Client) follow(ctx context.Context, s *stream) {
	for ctx.Err() == nil {
		var due <-chan time.Time
		if next := c.Step(ctx, s.id); !next.IsZero() {
			due = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-due:
		}
	}
}

// find returns a stream that is followed.
func (c *Client) find(id release.Stream) (*stream, error) {
	i := slices.IndexFunc(c.streams, func(s *stream) bool { return s.id == id })
	if i < 0 {
		var known []string
		for _, s := range c.streams {
			known = append(known, s.id.String())
		}
		return nil, fmt.Errorf("%w: %s; followed are %s", ErrUnknown, id, strings.Join(known, ", "))
	}
	return c.streams[i], nil
}

// ErrUnknown is the class of a stream that is not followed.
var ErrUnknown = errors.New("no such stream")

// Step does what is to be done now for a stream, one step, and returns when to call again: zero for not before something changes. Only one
// goroutine steps a stream.
func (c *Client) Step(ctx context.Context, id release.Stream) (next time.Time) {
	s, err := c.find(id)
	if err != nil {
		return time.Time{}
	}
	if !c.settle(ctx, s) {
		return c.cfg.Now().Add(firstRetry)
	}
	s.mu.Lock()
	u := s.record.Current
	if u == nil || u.State.Ended() || steps[u.State] == nil {
		s.mu.Unlock()
		return time.Time{}
	}
	if now := c.cfg.Now(); u.Next.After(now) {
		defer s.mu.Unlock()
		return u.Next
	}
	j := &job{stream: s, update: *u, paused: s.record.Paused}
	s.mu.Unlock()

	out, err := c.attempt(ctx, j)
	if ctx.Err() != nil {
		return time.Time{} // what was found out on the way down is not to be trusted
	}
	return c.apply(s, &j.update, out, err)
}

// attempt runs a step; what panics in it is an error of the step.
func (c *Client) attempt(ctx context.Context, j *job) (out outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a fault of the update client itself: %v", p)
		}
	}()
	return steps[j.update.State](c, ctx, j)
}

// apply writes down what came of a step that began with was.
func (c *Client) apply(s *stream, was *Update, out outcome, err error) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := c.cfg.Now()
	u := s.record.Current
	if u == nil || u.State != was.State || u.Offer.Path != was.Offer.Path || !u.Began.Equal(was.Began) {
		return now // the operator, or a look, did something else meanwhile
	}
	if err != nil {
		out = c.again(u, err, now)
	}
	out.check(u.State)
	if out.edit != nil {
		out.edit(u)
	}
	if out.to == "" {
		changed := u.Reason != out.reason || out.edit != nil || err != nil
		u.Reason, u.Next = out.reason, out.at
		if changed {
			c.save(s)
		}
		return out.at
	}
	c.enter(s, out.to, out.reason)
	return now
}

// again is the outcome of a step that failed: once more later, and at last not any more.
func (c *Client) again(u *Update, err error, now time.Time) outcome {
	n := u.Attempts + 1
	if errors.Is(err, ErrBusy) {
		n = u.Attempts // somebody else's doing
	}
	if n >= maxAttempts && u.State.before() && !elsewhere(err) {
		return move(Refused, "it failed %d times, the last time: %v", n, err)
	}
	wait := lastRetry
	if n < 8 {
		wait = min(firstRetry<<max(n-1, 0), lastRetry)
	}
	if u.State == RollBack {
		wait = min(wait, firstRetry)/10 + 1 // the machine is worse off until then
	}
	return stay(now.Add(jitter(wait)), "tried again: %v", err).with(func(u *Update) { u.Attempts = n })
}

// elsewhere reports whether an error is the network's, the mirrors' or the disk's, and says nothing of the release.
func elsewhere(err error) bool {
	return errors.Is(err, trust.ErrUnavailable) || errors.Is(err, trust.ErrSlow) || errors.Is(err, trust.ErrSpace) || errors.Is(err, unix.ENOSPC)
}

// enter brings the present update into a state and writes it down. Caller holds s.mu.
func (c *Client) enter(s *stream, to State, reason string) {
	u, now := s.record.Current, c.cfg.Now()
	m := Move{Time: now, Stream: s.id.String(), Version: u.version(), From: u.State, To: to, Reason: reason}
	u.State, u.Reason, u.Changed, u.Attempts, u.Next = to, reason, now, 0, time.Time{}
	if to != Watch {
		s.harm = nil
	}
	if s.around = s.around || to.around(); to != Shadow {
		s.beside = nil
	}
	if to.Ended() {
		s.record.conclude(now)
	}
	c.save(s)
	if to.Ended() {
		c.tidy(s)
	}
	c.told(s, m)
	poke(s.wake)
	switch to {
	case RolledBack: // something else is to be had now
		c.Check()
	case Fetch: // it is done by a look
		c.lookSoon()
	}
}

// begin makes an offer the present update. Caller holds s.mu.
func (c *Client) begin(s *stream, offer *trust.Offer, reason string) {
	now := c.cfg.Now()
	s.record.Current = &Update{Offer: *offer, State: Fetch, Began: now, Changed: now, Replaces: s.record.Installed}
	c.save(s)
	c.told(s, Move{Time: now, Stream: s.id.String(), Version: offer.Release.Version.String(), To: Fetch, Reason: reason})
	poke(s.wake)
}

// told passes a move on.
func (c *Client) told(s *stream, m Move) {
	if err := c.history.add(m); err != nil {
		s.record.Problem = err.Error()
	}
	if c.cfg.OnMove != nil {
		c.cfg.OnMove(m)
	}
}
