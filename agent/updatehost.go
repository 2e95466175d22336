package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"bailey/agent/event"
	"bailey/agent/hub"
	"bailey/agent/product"
	"bailey/agent/rehearsal"
	"bailey/agent/stall"
	"bailey/update/client"

	"google.golang.org/protobuf/encoding/protojson"
)

// updateHost runs products for the update client.
type updateHost struct {
	a *Agent

	rehearsing sync.Mutex // one release is noted as tried

	mu       sync.Mutex
	bases    map[string]base        // by product: how it was when the release was put in force
	compared map[string]*comparison // by product
}

// base is what a watched product had done before.
type base struct {
	release  string
	restarts uint32
	missed   uint64
	asked    uint64
	answers  answers
}

// answers are how many a product gave, and what they took in all.
type answers struct {
	n    uint64
	took time.Duration
}

func (a account) given() answers {
	if a.answers == nil {
		return answers{}
	}
	return answers{a.answers.Answered + a.answers.Overridden, a.answers.Took.Sum}
}

var _ client.Host = (*updateHost)(nil)

func newUpdateHost(a *Agent) *updateHost {
	return &updateHost{a: a, bases: map[string]base{}, compared: map[string]*comparison{}}
}

// Installed returns the release that is installed, and its folder.
func (h *updateHost) Installed(name string) (client.Installed, error) {
	v, err := h.a.products.Show(name)
	if errors.Is(err, product.ErrUnknown) {
		return client.Installed{}, client.ErrNotInstalled
	}
	in := client.Installed{Name: v.Release, Folder: v.Folder, Why: v.Status.Reason}
	if v.Manifest != nil {
		in.Version = v.Manifest.Version
	}
	return in, err
}

// Plan says what installing the folder would be.
func (h *updateHost) Plan(ctx context.Context, _, folder string) (client.Plan, error) {
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

// downsAllowed is how often the machine may go down while a release is rehearsed: once may be somebody at the switch.
const downsAllowed = 1

// Rehearse tries the folder. A release under which the machine went down is not tried for ever.
func (h *updateHost) Rehearse(ctx context.Context, _, folder, name string) (client.Rehearsal, error) {
	if !h.rehearsing.TryLock() {
		return client.Rehearsal{}, client.ErrBusy
	}
	defer h.rehearsing.Unlock()
	downs, err := h.a.boot.Try(name)
	if err != nil {
		return client.Rehearsal{}, err
	}
	if downs > downsAllowed {
		return client.Rehearsal{Reasons: []string{fmt.Sprintf("the machine went down %d times while it was rehearsed", downs)}}, h.a.boot.Tried(name)
	}
	r, err := h.rehearse(ctx, folder, name)
	return r, errors.Join(err, h.a.boot.Tried(name))
}

func (h *updateHost) rehearse(ctx context.Context, folder, name string) (client.Rehearsal, error) {
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
		if v, err = h.a.products.Promote(id, name); errors.Is(err, product.ErrNotBeside) || errors.Is(err, product.ErrUnknown) {
			v, err = h.a.products.Install(ctx, folder, func(r product.Request) error { return stillApproved(r, name, folder) })
		}
		if err != nil {
			return err
		}
	}
	h.a.ready.wait(ctx, v.Name)
	h.endComparison(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bases[v.Name] = h.base(&v)
	return nil
}

// base is how a product is now.
func (h *updateHost) base(v *product.View) base {
	a := h.account(v.Name)
	return base{release: v.Release, restarts: v.Status.Restarts, missed: a.missed(), asked: a.asked(), answers: a.given()}
}

func (h *updateHost) account(name string) account { return (*operator)(h.a).accounts()[name] }

// missed is how many questions a product gave no answer to while it lived.
func (a account) missed() uint64 {
	if a.answers == nil {
		return 0
	}
	return a.answers.Missed + a.answers.Unsent
}

// asked is how many questions a product was asked.
func (a account) asked() uint64 {
	if a.answers == nil {
		return 0
	}
	return a.answers.Live + a.answers.Shadow
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

// notBegun is how long a product may stand still that shall run: it does so for a moment when the agent starts, and when it ends.
const notBegun = 10 * time.Second

// Watch returns what says which harm a release does.
func (h *updateHost) Watch(name, release string) (func() string, error) {
	if h.a.products.Held() != "" {
		return nil, client.ErrOff
	}
	v, err := h.a.products.Show(name)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	b, ok := h.bases[name]
	h.mu.Unlock()
	if !ok || b.release != release { // another agent put it in force
		b = h.base(&v)
	}
	pace := pace{before: b.answers, last: b.answers, at: time.Now()}
	machine := stall.New()
	begun := false // an agent that starts has not started it yet
	return func() string {
		if begun = begun || h.begun(name); !begun {
			return ""
		}
		a := h.account(name)
		return cmp.Or(h.harm(name, b, &a), pace.harm(a.given(), time.Now()), machine.Harm())
	}, nil
}

// begun reports whether this agent has tried to start the product.
func (h *updateHost) begun(name string) bool {
	v, err := h.a.products.Show(name)
	return err != nil || v.Status.State != product.Stopped
}

// pace is how fast a product answers.
type pace struct {
	before answers // until the release was put in force: of this very run, if it ran beside the one before it
	last   answers
	at     time.Time
}

// When a product that is watched has become too slow for the machine: everybody who executes or opens something waits for it.
const (
	paceEvery  = 5 * time.Second
	paceLeast  = 20 // answers, before and now
	paceTimes  = 5
	paceSlowly = 20 * time.Millisecond
)

// harm says that the product answers much more slowly than before.
func (p *pace) harm(now answers, at time.Time) string {
	n := now.n - min(p.last.n, now.n)
	if at.Sub(p.at) < paceEvery || n < paceLeast {
		return ""
	}
	mean := (now.took - p.last.took) / time.Duration(n)
	p.last, p.at = now, at
	if p.before.n < paceLeast || mean < paceSlowly {
		return ""
	}
	if was := p.before.took / time.Duration(p.before.n); mean > paceTimes*was {
		return fmt.Sprintf("its answers take %v on average, and took %v", mean.Round(time.Millisecond), was.Round(time.Microsecond))
	}
	return ""
}

func (h *updateHost) harm(name string, b base, a *account) string {
	v, err := h.a.products.Show(name)
	if err != nil {
		return err.Error()
	}
	s := v.Status
	switch {
	case s.State == product.Failed, s.State == product.Waiting:
		return "it ended: " + s.Reason
	case s.State == product.Stopped && v.Enabled && time.Since(s.Since) > notBegun:
		return "it does not run: " + cmp.Or(s.Reason, "it was stopped")
	case s.Restarts > b.restarts:
		return fmt.Sprintf("it ended, and was started again %d times", s.Restarts-b.restarts)
	}
	if harm := rehearsal.Missed(a.missed()-b.missed, a.asked()-b.asked); harm != "" {
		return harm
	}
	if m := a.member; m != nil && (m.Authority == "degraded" || m.Authority == "braked") {
		return "it is " + m.Authority + ": " + m.Reason
	}
	return ""
}

// comparison is the one of a release that runs beside the live one.
type comparison struct {
	release string
	shadow  *rehearsal.Shadow
	tap     *hub.Tap
}

// comparedBacklog is how many outcomes may wait to be compared.
const comparedBacklog = 4096

// Shadow runs the folder beside the live release.
func (h *updateHost) Shadow(ctx context.Context, id, folder, name string) (func() client.Beside, error) {
	if h.starts(id) { // after a restart in this state: soon there is something to run beside
		return nil, client.ErrBusy
	}
	v, err := h.a.products.Shadow(ctx, folder, func(r product.Request) error { return stillApproved(r, name, folder) })
	switch {
	case errors.Is(err, product.ErrAlone):
		return nil, fmt.Errorf("%w: %w", client.ErrAlone, err)
	case errors.Is(err, product.ErrBusy):
		return nil, client.ErrBusy
	case err != nil:
		return nil, err
	case v.Release != name:
		return nil, fmt.Errorf("what runs beside %s is %s", id, v.Release)
	}
	h.endComparison(id)
	c := &comparison{
		release: name, tap: h.a.hub.TapPassive(event.KindsOf(event.Verdict), comparedBacklog),
		shadow: rehearsal.NewShadow(rehearsal.Live{
			Product: id, Beside: id + product.Next, Grants: v.Grants, Limits: h.a.rehearsalLimits(id), IsCritical: h.a.critical.Contains, Owned: h.a.critical.Owned,
		}),
	}
	h.mu.Lock()
	h.compared[id] = c
	h.mu.Unlock()
	go func() {
		defer c.tap.Close()
		for {
			e, lost, err := c.tap.Next(ctx)
			if err != nil {
				return
			}
			c.shadow.Take(e, lost)
		}
	}()
	return func() client.Beside { return h.beside(id, c) }, nil
}

// starts reports whether a product is about to run.
func (h *updateHost) starts(id string) bool {
	v, err := h.a.products.Show(id)
	return err == nil && v.Enabled && h.a.products.Held() == "" && (v.Status.State == product.Stopped || v.Status.State == product.Starting)
}

// beside says how the release beside a product does.
func (h *updateHost) beside(id string, c *comparison) client.Beside {
	b := client.Beside{Ready: h.a.ready.is(id + product.Next), Report: func() json.RawMessage {
		report, err := protojson.Marshal(comparisonMessage(c.shadow.Report()))
		if err != nil {
			return nil
		}
		return report
	}}
	v, err := h.a.products.Beside(id)
	switch {
	case err != nil || v.Release != c.release:
		b.Gone = true
	case v.Status.State == product.Failed:
		b.Harm = "it ended: " + v.Status.Reason
	default:
		b.Harm = c.shadow.Harm()
	}
	if b.Harm == "" && b.Ready {
		accounts := (*operator)(h.a).accounts()
		live, next := accounts[id].member, accounts[id+product.Next].member
		if live != nil && next != nil && live.QuestionKinds&^next.QuestionKinds != 0 {
			b.Harm = fmt.Sprintf("it does not want to be asked about %v, which the release in force is", kindWords(live.QuestionKinds&^next.QuestionKinds))
		}
	}
	return b
}

// endComparison ends comparing what ran beside a product.
func (h *updateHost) endComparison(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.compared[id]; c != nil {
		c.tap.Close()
		delete(h.compared, id)
	}
}

// Settle ends what runs beside a product for the sake of a release.
func (h *updateHost) Settle(ctx context.Context, id, name string) error {
	h.mu.Lock()
	c := h.compared[id]
	h.mu.Unlock()
	if c != nil && c.release == name {
		h.endComparison(id)
	}
	return h.a.products.Settle(ctx, id, name)
}
