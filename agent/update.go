package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"bailey/agent/control"
	"bailey/agent/health"
	"bailey/agent/journal"
	"bailey/agent/product"
	controlv1 "bailey/api/control/v1"
	"bailey/update/client"
	"bailey/update/release"
	"bailey/update/trust"

	"google.golang.org/protobuf/encoding/protojson"
)

// updateDir is what the update client has, in the state directory.
const updateDir = "update"

func (a *Agent) makeUpdates() (*client.Client, error) {
	c := &a.cfg.Update
	root, err := os.ReadFile(c.Root)
	if err != nil {
		return nil, fmt.Errorf("read the repository's root: %w", err)
	}
	dir := filepath.Join(a.cfg.Agent.State, updateDir)
	trusted := trust.Config{Dir: filepath.Join(dir, "trust"), Root: root}
	if at, err := time.Parse(time.RFC3339, a.build.Time); err == nil {
		trusted.Built = at
	}
	for _, m := range c.Mirrors {
		trusted.Mirrors = append(trusted.Mirrors, trust.At(strings.TrimSuffix(m, "/")))
	}
	repository, err := trust.New(trusted)
	if err != nil {
		return nil, err
	}
	cfg := client.Config{
		Dir: dir, Repository: client.Trusted{Client: repository}, Host: newUpdateHost(a), OS: runtime.GOOS + "/" + runtime.GOARCH,
		Interval: c.Interval.Duration, Lease: c.Lease.Duration, Watch: c.Watch.Duration, Defer: c.Defer.Duration, Manual: c.Manual, OnMove: a.updateMoved,
	}
	if v, err := release.ParseVersion(strings.TrimPrefix(a.build.Version, "v")); err == nil {
		cfg.Platform = v
	}
	for _, text := range c.Streams {
		s, err := release.ParseStream(text)
		if err != nil {
			return nil, err // checked with the configuration
		}
		cfg.Streams = append(cfg.Streams, s)
	}
	return client.New(cfg)
}

// updating is the update client as a stage, if the operator names mirrors. What cannot be read is a health entry: the agent
// protects without updates, too. It is made here and not with the agent: the agent before may have brought something in meanwhile.
func (a *Agent) updating() []stage {
	if len(a.cfg.Update.Mirrors) == 0 {
		return nil
	}
	return []stage{{"updates", func(ctx context.Context) error {
		made, err := a.makeUpdates()
		if err != nil {
			a.health.Set(health.Entry{
				Component: "update", Status: health.Failed, Summary: "nothing is fetched: " + err.Error(),
				Remedy: "set [update] right, put the repository's root where update.root says, and restart the agent",
			})
			a.log.Error("updates are off", "err", err)
			<-ctx.Done()
			return ctx.Err()
		}
		a.updates.Store(made)
		return errors.Join(made.Run(ctx), ctx.Err())
	}}}
}

// updateMoved tells journal, log and health of a move.
func (a *Agent) updateMoved(m client.Move) {
	a.journal.Note(journal.KindUpdate, map[string]any{
		"stream": m.Stream, "version": m.Version, "from": string(m.From), "to": string(m.To), "reason": m.Reason,
	})
	say := a.log.Info
	e := health.Entry{Component: "update." + m.Stream, Status: health.OK, Summary: fmt.Sprintf("%s: %s", m.Version, m.To)}
	switch m.To {
	case client.Refused, client.RolledBack, client.RollBack:
		say = a.log.Warn
		e.Status, e.Summary = health.Degraded, fmt.Sprintf("%s is %s: %s", m.Version, m.To, m.Reason)
		e.Remedy = "the release before goes on; see: bailey update show " + m.Stream
	case client.Approve:
		e.Status, e.Summary = health.Degraded, fmt.Sprintf("%s waits for you: %s", m.Version, m.Reason)
		e.Remedy = "bailey update show " + m.Stream + ", then bailey update apply " + m.Stream
	}
	say("update", "stream", m.Stream, "version", m.Version, "from", m.From, "to", m.To, "reason", m.Reason)
	a.health.Set(e)
}

// updateHost runs products for the update client.
type updateHost struct {
	a *Agent

	mu    sync.Mutex
	bases map[string]base // by product: how it was when the release was put in force
}

// base is what a watched product had done before.
type base struct {
	release  string
	restarts uint32
	missed   uint64
}

var _ client.Host = (*updateHost)(nil)

func newUpdateHost(a *Agent) *updateHost { return &updateHost{a: a, bases: map[string]base{}} }

// Installed returns the release that is installed, and its folder.
func (h *updateHost) Installed(name string) (client.Installed, error) {
	v, err := h.a.products.Show(name)
	if errors.Is(err, product.ErrUnknown) {
		return client.Installed{}, client.ErrNotInstalled
	}
	in := client.Installed{Name: v.Release, Folder: v.Folder}
	if v.Manifest != nil {
		in.Version = v.Manifest.Version
	}
	return in, err
}

// Plan says what installing the folder would be.
func (h *updateHost) Plan(ctx context.Context, folder string) (client.Plan, error) {
	r, err := h.a.products.Plan(ctx, folder)
	if err != nil {
		return client.Plan{}, err
	}
	asks := r.New
	if r.Installed == "" {
		asks = r.Wants
	}
	return client.Plan{Product: r.Name, Version: r.Version, Name: r.Release, Asks: asks}, nil
}

// Rehearse tries the folder.
func (h *updateHost) Rehearse(ctx context.Context, folder, name string) (client.Rehearsal, error) {
	r, err := h.a.rehearse(ctx, folder, name, nil)
	if errors.Is(err, product.ErrBusy) {
		return client.Rehearsal{}, client.ErrBusy
	}
	if err != nil {
		return client.Rehearsal{}, err
	}
	report, err := protojson.Marshal(rehearsalMessage(r))
	return client.Rehearsal{Passed: r.Passed, Reasons: r.Reasons, Report: report}, err
}

// Install puts the folder in force.
func (h *updateHost) Install(ctx context.Context, id, folder, name string) error {
	v, err := h.a.products.Show(id)
	if err != nil || v.Release != name {
		if v, err = h.a.products.Install(ctx, folder, func(r product.Request) error { return stillApproved(r, name, folder) }); err != nil {
			return err
		}
	}
	h.a.ready.wait(ctx, v.Name)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bases[v.Name] = base{release: name, restarts: v.Status.Restarts, missed: h.account(v.Name).missed()}
	return nil
}

func (h *updateHost) account(name string) account { return (*operator)(h.a).accounts()[name] }

// missed is how many questions a product gave no answer to while it lived.
func (a account) missed() uint64 {
	if a.answers == nil {
		return 0
	}
	return a.answers.Missed + a.answers.Unsent
}

// Back puts the release before in force; a product whose first release did harm is stopped.
func (h *updateHost) Back(ctx context.Context, name, from string) error {
	v, err := h.a.products.GoBack(ctx, name, from)
	if errors.Is(err, product.ErrFirst) { // better none than this one
		_, err = h.a.products.Stop(ctx, name)
		return err
	}
	if err == nil {
		h.a.ready.wait(ctx, v.Name)
	}
	return err
}

// missesAllowed is how many questions a release that is watched may miss: on a busy machine a good one misses one.
const missesAllowed = 2

// Watch returns what says which harm a release does.
func (h *updateHost) Watch(name, release string) (func() string, error) {
	v, err := h.a.products.Show(name)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	b, ok := h.bases[name]
	h.mu.Unlock()
	if !ok || b.release != release { // another agent put it in force
		b = base{release: release, restarts: v.Status.Restarts, missed: h.account(name).missed()}
	}
	return func() string { return h.harm(name, b) }, nil
}

func (h *updateHost) harm(name string, b base) string {
	v, err := h.a.products.Show(name)
	if err != nil {
		return err.Error()
	}
	s := v.Status
	switch {
	case s.State == product.Failed, s.State == product.Waiting:
		return "it ended: " + s.Reason
	case s.Restarts > b.restarts:
		return fmt.Sprintf("it ended, and was started again %d times", s.Restarts-b.restarts)
	}
	a := h.account(name)
	if n := a.missed(); n > b.missed+missesAllowed {
		return fmt.Sprintf("it missed %d questions", n-b.missed)
	}
	if m := a.member; m != nil && (m.Authority == "degraded" || m.Authority == "braked") {
		return "it is " + m.Authority + ": " + m.Reason
	}
	return ""
}

// updates shows and steers updates for the operator.
type updates Agent

var _ control.Updates = (*updates)(nil)

// errNoUpdates says that nothing is followed.
var errNoUpdates = &control.Fault{
	Class: control.Refused, Message: "this agent follows no repository",
	Hint: "name mirrors, the root and streams under [update] in the configuration, and restart the agent",
}

// List returns the streams.
func (u *updates) List(context.Context) (*controlv1.UpdateListResponse, error) {
	c := u.updates.Load()
	if c == nil {
		return &controlv1.UpdateListResponse{}, nil
	}
	l := c.Looked()
	m := &controlv1.UpdateListResponse{
		Enabled: true, Looked: sinceEpoch(l.At), Tried: sinceEpoch(l.Tried), Problem: valid(l.Problem), Expires: sinceEpoch(l.Expires),
	}
	for _, s := range c.Status() {
		m.Streams = append(m.Streams, streamMessage(&s))
	}
	return m, nil
}

func sinceEpoch(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func streamMessage(s *client.Status) *controlv1.UpdateStream {
	r := &s.Record
	m := &controlv1.UpdateStream{
		Stream: s.Stream.String(), Installed: r.Installed, Waiting: valid(s.Waiting), Paused: r.Paused, Pinned: r.Pinned, Frozen: valid(r.Frozen), Problem: valid(r.Problem),
	}
	for _, o := range s.Offers {
		v := o.Release.Version.String()
		m.Offers = append(m.Offers, &controlv1.UpdateOffer{
			Version: v, Urgency: string(o.Release.Urgency), Epoch: o.Release.Epoch, Bytes: uint64(o.Length), Bad: valid(r.Bad[v]),
		})
	}
	if c := r.Current; c != nil {
		m.Update = &controlv1.Update{
			Version: c.Offer.Release.Version.String(), State: string(c.State), Reason: valid(c.Reason), Began: sinceEpoch(c.Began), Changed: sinceEpoch(c.Changed),
			Until: sinceEpoch(c.Until), Release: c.Release, Previous: c.Previous, Asks: c.Asks, Forced: c.Forced, Rehearsal: rehearsed(c.Rehearsal),
		}
	}
	return m
}

// rehearsed reads a report that was kept; one that cannot be read is none.
func rehearsed(report json.RawMessage) *controlv1.Rehearsal {
	m := &controlv1.Rehearsal{}
	if len(report) == 0 || (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(report, m) != nil {
		return nil
	}
	return m
}

// Check has the mirrors looked at.
func (u *updates) Check(context.Context) error {
	c := u.updates.Load()
	if c == nil {
		return errNoUpdates
	}
	c.Check()
	return nil
}

// Set does what the operator wants of a stream.
func (u *updates) Set(_ context.Context, r *controlv1.UpdateSetRequest) (*controlv1.UpdateStream, error) {
	c := u.updates.Load()
	if c == nil {
		return nil, errNoUpdates
	}
	id, err := release.ParseStream(r.GetStream())
	if err != nil {
		return nil, &control.Fault{Class: control.Invalid, Message: err.Error(), Hint: "see: bailey update list"}
	}
	var v release.Version
	if r.GetVersion() != "" {
		if v, err = release.ParseVersion(r.GetVersion()); err != nil {
			return nil, &control.Fault{Class: control.Invalid, Message: err.Error()}
		}
	}
	do := map[string]func() error{
		"apply":    func() error { return c.Approve(id, r.GetForce()) },
		"pause":    func() error { return c.Pause(id) },
		"resume":   func() error { return c.Resume(id) },
		"pin":      func() error { return c.Pin(id, v) },
		"skip":     func() error { return c.Skip(id, v) },
		"rollback": func() error { return c.Back(id) },
	}[r.GetAction()]
	switch {
	case do == nil:
		return nil, &control.Fault{Class: control.Invalid, Message: fmt.Sprintf("%q is no action", r.GetAction()), Hint: "apply, pause, resume, pin, skip or rollback"}
	case r.GetAction() == "skip" && v.IsZero():
		return nil, &control.Fault{Class: control.Invalid, Message: "no version is named", Hint: "name the one to skip"}
	}
	switch err := do(); {
	case errors.Is(err, client.ErrUnknown):
		return nil, &control.Fault{Class: control.NotFound, Message: err.Error(), Hint: "see: bailey update list"}
	case errors.Is(err, client.ErrNothing):
		return nil, &control.Fault{Class: control.Refused, Message: err.Error(), Hint: "see: bailey update show " + id.String()}
	case err != nil:
		return nil, err
	}
	for _, s := range c.Status() {
		if s.Stream == id {
			return streamMessage(&s), nil
		}
	}
	return nil, errNoUpdates // it was followed a moment ago
}

// History returns the newest moves.
func (u *updates) History(_ context.Context, limit int) ([]*controlv1.UpdateMove, error) {
	c := u.updates.Load()
	if c == nil {
		return nil, errNoUpdates
	}
	moves, err := c.History(limit)
	var out []*controlv1.UpdateMove
	for _, m := range moves {
		out = append(out, &controlv1.UpdateMove{
			Time: sinceEpoch(m.Time), Stream: m.Stream, Version: m.Version, From: string(m.From), To: string(m.To), Reason: valid(m.Reason),
		})
	}
	return out, err
}
