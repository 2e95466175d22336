package agent

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"bailey/agent/control"
	"bailey/agent/hub"
	"bailey/agent/product"
	"bailey/agent/product/grant"
	"bailey/agent/product/manifest"
	"bailey/agent/verdict"
	controlv1 "bailey/api/control/v1"
	"bailey/internal/boottime"
)

// operator does to the products what the operator asks for.
type operator Agent

var _ control.Products = (*operator)(nil)

// fault says what kind of mistake err is.
func fault(err error) error {
	if err == nil {
		return nil
	}
	var done *control.Fault
	if errors.As(err, &done) {
		return done
	}
	f := &control.Fault{Class: control.Refused, Message: err.Error()}
	var bad *manifest.Error
	switch {
	case errors.Is(err, product.ErrUnknown):
		f.Class, f.Hint = control.NotFound, "see: bailey product list"
	case errors.As(err, &bad):
		f.Class = control.Invalid
	case errors.Is(err, product.ErrHeld):
		f.Hint = "see `bailey boot`"
	case errors.Is(err, product.ErrBusy):
		f.Hint = "try again when it is over, in a minute at most"
	case errors.Is(err, fs.ErrNotExist):
		f.Class, f.Hint = control.NotFound, "give the folder that holds the product's manifest.toml"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		f.Class = control.Unavailable
	}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		f.Hint = hinted.Hint()
	}
	return f
}

// Plan says what installing the folder would grant.
func (o *operator) Plan(ctx context.Context, path string) (*controlv1.ProductPlanResponse, error) {
	r, err := o.products.Plan(ctx, path)
	if err != nil {
		return nil, fault(err)
	}
	return &controlv1.ProductPlanResponse{
		Name: r.Name, Release: r.Release, Description: r.Description, Installed: r.Installed,
		Requests: r.Wants, Means: grant.Describe(r.Wants), Added: r.New, AddedMeans: grant.Describe(r.New),
		Hash: r.Release, // it ends in the digest of the folder's content, the manifest included
	}, nil
}

// Install installs the folder if it is still the one that was approved.
func (o *operator) Install(ctx context.Context, path, approved string) (*controlv1.Product, error) {
	v, err := o.products.Install(ctx, path, func(r product.Request) error { return stillApproved(r, approved, path) })
	return o.replyReady(ctx, v, err)
}

// stillApproved checks that a folder's content is what was approved.
func stillApproved(r product.Request, approved, path string) error {
	if r.Release == approved {
		return nil
	}
	return &control.Fault{
		Class: control.Refused, Message: "the folder has changed since it was shown: it holds " + r.Release + ", approved was " + approved,
		Hint: "look at it again: bailey product install " + path,
	}
}

// List returns all installed products.
func (o *operator) List(context.Context) ([]*controlv1.Product, error) {
	accounts := o.accounts()
	var out []*controlv1.Product
	for _, v := range o.products.List() {
		out = append(out, o.message(v, accounts[v.Name]))
	}
	return out, nil
}

// Show returns one product.
func (o *operator) Show(_ context.Context, name string) (*controlv1.Product, error) {
	v, err := o.products.Show(name)
	return o.reply(v, err)
}

// Start enables and starts a product.
func (o *operator) Start(ctx context.Context, name string) (*controlv1.Product, error) {
	v, err := o.products.Start(ctx, name)
	return o.replyReady(ctx, v, err)
}

// Stop stops and disables a product.
func (o *operator) Stop(ctx context.Context, name string) (*controlv1.Product, error) {
	v, err := o.products.Stop(ctx, name)
	return o.reply(v, err)
}

// Restart stops and starts a product.
func (o *operator) Restart(ctx context.Context, name string) (*controlv1.Product, error) {
	v, err := o.products.Restart(ctx, name)
	return o.replyReady(ctx, v, err)
}

// Remove forgets a product; its state is kept for a later installation.
func (o *operator) Remove(ctx context.Context, name string) error {
	if err := o.products.Remove(ctx, name, false); err != nil {
		return fault(err)
	}
	return fault(o.brake.Forget(name))
}

// Grant adds to what a product may.
func (o *operator) Grant(ctx context.Context, name string, grants []string) (*controlv1.Product, error) {
	v, err := o.products.Grant(ctx, name, grants...)
	return o.replyReady(ctx, v, err)
}

// Revoke takes from what a product may.
func (o *operator) Revoke(ctx context.Context, name string, grants []string) (*controlv1.Product, error) {
	v, err := o.products.Revoke(ctx, name, grants...)
	return o.replyReady(ctx, v, err)
}

// Set changes the operator's settings of a product.
func (o *operator) Set(ctx context.Context, name string, settings map[string]string) (*controlv1.Product, error) {
	v, err := o.products.Set(ctx, name, settings)
	return o.replyReady(ctx, v, err)
}

// Logs gives write a product's output.
func (o *operator) Logs(ctx context.Context, name string, follow bool, write func([]byte) error) error {
	return fault(o.products.Logs(ctx, name, follow, write))
}

// replyReady is reply after a command that (re)started a product: when it returns, the product is asked.
func (o *operator) replyReady(ctx context.Context, v product.View, err error) (*controlv1.Product, error) {
	if err == nil {
		o.ready.wait(ctx, v.Name)
	}
	return o.reply(v, err)
}

func (o *operator) reply(v product.View, err error) (*controlv1.Product, error) {
	if err != nil {
		return nil, fault(err)
	}
	return o.message(v, o.accounts()[v.Name]), nil
}

// account is what hub and engine counted of one product.
type account struct {
	member  *hub.ClientStats // nil while it is not attached
	ready   bool             // it has subscribed
	answers *verdict.ProductStats
}

func (o *operator) accounts() map[string]account {
	out := map[string]account{}
	for _, p := range o.engine.Stats().Products {
		a := out[p.Name]
		a.answers = &p
		out[p.Name] = a
	}
	for _, c := range o.hub.Stats().Clients {
		a := out[c.Name]
		a.member, a.ready = &c, o.ready.is(c.Name)
		out[c.Name] = a
	}
	return out
}

func (o *operator) message(v product.View, a account) *controlv1.Product {
	items := v.Grants.Items()
	m := &controlv1.Product{
		Name: v.Name, Release: v.Release, State: string(v.Status.State), Authority: authority(v, a), Reason: v.Status.Reason,
		Restarts: v.Status.Restarts, Pid: uint32(v.Status.PID), Uid: v.UID, Grants: items, Means: grant.Describe(items),
		Settings: map[string]string{}, Counters: productCounters(v, a), Folder: v.Folder,
	}
	m.AuthorityReason, m.AuthoritySince = authorityReason(v, a, m.GetAuthority())
	if v.Status.State == product.Running {
		m.Started = bootTime(v.Status.Since)
	}
	if v.Manifest != nil {
		m.Description = v.Manifest.Description
		for k, text := range v.Manifest.Settings {
			m.Settings[k] = text
		}
	}
	for k, text := range v.Settings {
		m.Settings[k] = text
	}
	return m
}

// authority is what a product's answers count for now. A product that is attached but has not said what it wants is off.
func authority(v product.View, a account) string {
	switch {
	case v.Status.State != product.Running || a.member == nil || !a.ready:
		return "off"
	case a.member.Authority == "live" && a.answers != nil && a.answers.Degraded:
		return "degraded" // the hub is about to hear of it
	}
	return a.member.Authority
}

// authorityReason says why a product's answers count as much as they do, with what it lacks, and since when.
func authorityReason(v product.View, a account, word string) (reason string, since uint64) {
	if word == "off" {
		if v.Status.State == product.Running {
			return "it has not said yet what it wants", bootTime(v.Status.Since)
		}
		return v.Status.Reason, bootTime(v.Status.Since)
	}
	reason = a.member.Reason
	if reason == "" {
		reason = v.Status.Strain
	}
	return reason, a.member.Since
}

// bootTime turns a time of this uptime into nanoseconds since boot.
func bootTime(t time.Time) uint64 {
	now, ago := boottime.Now(), max(time.Since(t), 0)
	return now - min(now, uint64(ago))
}

func productCounters(v product.View, a account) *controlv1.ProductCounters {
	c := &controlv1.ProductCounters{Memory: uint64(max(v.Status.Memory, 0)), Cpu: uint64(max(v.Status.CPU, 0))}
	if m := a.member; m != nil {
		c.Events, c.Lost, c.Findings, c.Faults, c.Queued = m.Sent, m.Dropped, m.Findings, m.Faults, uint64(m.Queued)
	}
	if p := a.answers; p != nil {
		c.Questions = p.Live + p.Shadow
		c.Answers, c.Denies, c.Overridden = p.Answered, p.Denied, p.Overridden
		c.Braked, c.Critical = p.Braked, p.Critical
		c.Misses, c.Late = p.Missed+p.Unsent+p.Gone, p.Late
		c.LatencyBuckets = p.Took.Below[:]
		c.LatencyP50, c.LatencyP99 = uint64(p.Took.Quantile(0.5)), uint64(p.Took.Quantile(0.99))
	}
	return c
}
