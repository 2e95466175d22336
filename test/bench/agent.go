package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"bailey/test/bench/contender"
	"bailey/test/started"
)

// folder is an installable product folder, with the operator's settings.
type folder struct {
	name, dir string
	settings  []string // KEY=VALUE
}

// trivial is the built product that allows everything.
type trivial struct{ binary, dir string }

// buildTrivial compiles test/bench/product.
func buildTrivial(ctx context.Context, cache string) (*trivial, error) {
	t := &trivial{binary: filepath.Join(cache, "product"), dir: "/run/products"}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", t.binary, "./test/bench/product")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the trivial product: %w\n%s", err, out)
	}
	return t, nil
}

// folders describes n products; write makes them.
func (t *trivial) folders(n int, cache string) []folder {
	var out []folder
	for i := range n {
		name := fmt.Sprintf("bench-%s-%d", cache, i+1)
		out = append(out, folder{name: name, dir: filepath.Join(t.dir, name)})
	}
	return out
}

// write makes the folder of a trivial product; other folders exist already.
func (f folder) write(binary string) error {
	if exists(f.dir) {
		return nil
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return err
	}
	text, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(f.dir, "product"), text, 0o755); err != nil {
		return err
	}
	cache := strings.Split(f.name, "-")[1]
	return os.WriteFile(filepath.Join(f.dir, "manifest.toml"), []byte(contender.Manifest(f.name, fsDir, cache)), 0o644)
}

// agentLane runs the agent, watching the bench's filesystem alone, with some products.
type agentLane struct {
	w        *world
	bailey   string
	label    string
	products []folder
	dir      string
	child    *started.Program
}

func (l *agentLane) name() string { return l.label }

func (l *agentLane) start(ctx context.Context) (int, error) {
	dir, err := os.MkdirTemp("/run", "agent-")
	if err != nil {
		return 0, err
	}
	l.dir = dir
	c, err := startChild(dir+"/log", l.bailey, "agent", "--state", dir+"/state", "--run", dir+"/run", "--watch", fsDir)
	if err != nil {
		return 0, err
	}
	l.child = c
	if err := l.install(ctx); err != nil {
		out := c.Output()
		c.End(5 * time.Second)
		return 0, fmt.Errorf("%w\nthe agent said:\n%s", err, out)
	}
	return c.PID(), nil
}

// install waits for the agent, installs the products and waits until all are live.
func (l *agentLane) install(ctx context.Context) error {
	if err := l.child.Await(ctx, 30*time.Second, func() error { _, err := l.control(ctx, "status"); return err }); err != nil {
		return err
	}
	for _, p := range l.products {
		if err := p.write(filepath.Join(l.w.opts.cache, "product")); err != nil {
			return fmt.Errorf("write product %s: %w", p.name, err)
		}
		if _, err := l.control(ctx, "product", "install", p.dir, "--yes"); err != nil {
			return err
		}
		if len(p.settings) == 0 {
			continue
		}
		if _, err := l.control(ctx, append([]string{"product", "set", p.name}, p.settings...)...); err != nil {
			return err
		}
	}
	return l.child.Await(ctx, 60*time.Second, func() error { return l.allLive(ctx) })
}

// allLive fails while a product is not running with live authority.
func (l *agentLane) allLive(ctx context.Context) error {
	for _, p := range l.products {
		out, err := l.control(ctx, "product", "show", p.name, "--json")
		if err != nil {
			return err
		}
		var shown struct {
			Product struct {
				State     string `json:"state"`
				Authority string `json:"authority"`
			} `json:"product"`
		}
		if err := json.Unmarshal(out, &shown); err != nil {
			return fmt.Errorf("read product %s: %w", p.name, err)
		}
		if shown.Product.State != "running" || shown.Product.Authority != "live" {
			return fmt.Errorf("product %s is %s, authority %s", p.name, shown.Product.State, shown.Product.Authority)
		}
	}
	return nil
}

// control runs the command line against this lane's agent.
func (l *agentLane) control(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.bailey, append(args, "--run", l.dir+"/run")...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("bailey %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	return out, err
}

func (l *agentLane) stop() string {
	status, err := l.control(context.Background(), "status", "--json")
	l.child.End(15 * time.Second)
	if err == nil {
		_ = os.WriteFile(filepath.Join(l.w.opts.cache, "status-"+l.label+".json"), status, 0o644)
	}
	_ = os.RemoveAll(l.dir)
	return ""
}
