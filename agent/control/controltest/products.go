package controltest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"bailey/agent/control"
	controlv1 "bailey/api/control/v1"

	"google.golang.org/protobuf/proto"
)

// Products implements control.Products. A product's folder needs a manifest.toml; its text is the plan's hash, the folder's
// name is the product's.
type Products struct {
	mu        sync.Mutex
	installed map[string]*controlv1.Product
}

var _ control.Products = (*Products)(nil)

// Plan asks for the exec question with deny.
func (p *Products) Plan(_ context.Context, path string) (*controlv1.ProductPlanResponse, error) {
	manifest, err := os.ReadFile(filepath.Join(path, "manifest.toml"))
	if err != nil {
		return nil, &control.Fault{Class: control.NotFound, Message: fmt.Sprintf("%s is not a product's folder", path), Hint: "name the folder that holds manifest.toml", Err: err}
	}
	sum := sha256.Sum256(manifest)
	p.mu.Lock()
	defer p.mu.Unlock()
	name := filepath.Base(path)
	return &controlv1.ProductPlanResponse{
		Name: name, Release: "0.1.0", Description: "a product of the tests", Installed: p.installed[name].GetRelease(),
		Requests: []string{"decide:exec", "deny", "live", "memory:128MiB", "see:exec"},
		Means:    []string{"be asked before every program start", "deny", "see these events: exec", "use up to 128MiB of memory"},
		Added:    []string{"decide:exec", "deny"}, AddedMeans: []string{"be asked before every program start", "deny"},
		Hash: hex.EncodeToString(sum[:]),
	}, nil
}

// approved is Plan for what was approved.
func (p *Products) approved(ctx context.Context, path, approved string) (*controlv1.ProductPlanResponse, error) {
	plan, err := p.Plan(ctx, path)
	if err == nil && plan.GetHash() != approved {
		err = &control.Fault{Class: control.Refused, Message: fmt.Sprintf("%s changed since it was approved", path), Hint: "look at its request again: `bailey product install`"}
	}
	return plan, err
}

// Rehearse passes releases unless their folder has a file "bad".
func (p *Products) Rehearse(ctx context.Context, path, approved string, say func(*controlv1.RehearsalProgress) error) (*controlv1.Rehearsal, error) {
	plan, err := p.approved(ctx, path, approved)
	if err != nil {
		return nil, err
	}
	if err := say(&controlv1.RehearsalProgress{Stage: "asking", Done: 1, Of: 2}); err != nil {
		return nil, err
	}
	r := &controlv1.Rehearsal{
		Product: plan.GetName(), Release: plan.GetRelease(), Passed: true, Took: 2e9, Events: 5, Recorded: 7, Critical: 3, Corpus: 5, Absent: 6, Good: 4, Own: 2, Changed: 1, Answered: 21, Denied: 1,
		NewAllow:   &controlv1.RehearsalDifferences{Files: 1, Examples: []*controlv1.RehearsalDifference{{Asked: "exec", File: "/opt/x", By: "/bin/sh", Before: "deny"}}},
		LatencyP50: 1e6, LatencyP99: 2e6, LatencyMax: 3e6, Cpu: 4e7, Memory: 5 << 20, MemoryLimit: 128 << 20,
	}
	if _, err := os.Stat(filepath.Join(path, "bad")); err == nil {
		r.Passed, r.Reasons, r.Log = false, []string{"it ended by signal 11 (SIGSEGV) while it was asked about exec of /bin/ls"}, "panic\n"
	}
	return r, nil
}

// Install installs what Plan showed.
func (p *Products) Install(ctx context.Context, path, approved string) (*controlv1.Product, error) {
	plan, err := p.approved(ctx, path, approved)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	product := &controlv1.Product{
		Name: plan.GetName(), Release: plan.GetRelease(), Description: plan.GetDescription(), State: "running", Authority: "live", Pid: 4242, Uid: 1_900_000_000,
		Grants: plan.GetRequests(), Means: plan.GetMeans(), Settings: map[string]string{"mode": "monitor"}, Counters: &controlv1.ProductCounters{Questions: 3, Answers: 3},
	}
	p.installed[product.GetName()] = product
	return clone(product), nil
}

func clone(p *controlv1.Product) *controlv1.Product { return proto.Clone(p).(*controlv1.Product) }

// List returns the products in the order of their names.
func (p *Products) List(context.Context) ([]*controlv1.Product, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*controlv1.Product
	for _, name := range slices.Sorted(maps.Keys(p.installed)) {
		out = append(out, clone(p.installed[name]))
	}
	return out, nil
}

func (p *Products) change(name string, f func(*controlv1.Product) error) (*controlv1.Product, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	product, ok := p.installed[name]
	if !ok {
		return nil, &control.Fault{Class: control.NotFound, Message: fmt.Sprintf("no product is called %q", name), Hint: "`bailey product list` shows those installed"}
	}
	if err := f(product); err != nil {
		return nil, err
	}
	return clone(product), nil
}

// Show returns one product.
func (p *Products) Show(_ context.Context, name string) (*controlv1.Product, error) {
	return p.change(name, func(*controlv1.Product) error { return nil })
}

// Start makes a product running.
func (p *Products) Start(_ context.Context, name string) (*controlv1.Product, error) {
	return p.change(name, func(x *controlv1.Product) error { x.State = "running"; return nil })
}

// Stop makes a product stopped.
func (p *Products) Stop(_ context.Context, name string) (*controlv1.Product, error) {
	return p.change(name, func(x *controlv1.Product) error { x.State = "stopped"; return nil })
}

// Restart counts a restart.
func (p *Products) Restart(_ context.Context, name string) (*controlv1.Product, error) {
	return p.change(name, func(x *controlv1.Product) error { x.State = "running"; x.Restarts++; return nil })
}

// Remove forgets a product.
func (p *Products) Remove(_ context.Context, name string) error {
	_, err := p.change(name, func(*controlv1.Product) error { delete(p.installed, name); return nil })
	return err
}

// Grant knows the grants deny, deny_critical and see:KIND.
func (p *Products) Grant(_ context.Context, name string, grants []string) (*controlv1.Product, error) {
	return p.change(name, func(x *controlv1.Product) error { return setGrants(x, grants, true) })
}

// Revoke is the inverse of Grant.
func (p *Products) Revoke(_ context.Context, name string, grants []string) (*controlv1.Product, error) {
	return p.change(name, func(x *controlv1.Product) error { return setGrants(x, grants, false) })
}

func setGrants(p *controlv1.Product, grants []string, on bool) error {
	for _, item := range grants {
		if item != "deny" && item != "deny_critical" && !strings.HasPrefix(item, "see:") {
			return &control.Fault{Class: control.Invalid, Message: fmt.Sprintf("unknown grant %q", item), Hint: "use deny, deny_critical or see:EVENT"}
		}
		p.Grants = slices.DeleteFunc(p.Grants, func(s string) bool { return s == item })
		if on {
			p.Grants = append(p.Grants, item)
		}
	}
	return nil
}

// Set changes settings.
func (p *Products) Set(_ context.Context, name string, settings map[string]string) (*controlv1.Product, error) {
	return p.change(name, func(x *controlv1.Product) error { maps.Copy(x.Settings, settings); return nil })
}

// Logs writes two lines; with follow it then waits for ctx.
func (p *Products) Logs(ctx context.Context, name string, follow bool, write func([]byte) error) error {
	if _, err := p.Show(ctx, name); err != nil {
		return err
	}
	for _, line := range []string{"started\n", "ready\n"} {
		if err := write([]byte(line)); err != nil {
			return err
		}
	}
	if follow {
		<-ctx.Done()
	}
	return nil
}
