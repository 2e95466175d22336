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

	"bailey/test/bench/contender"
	"bailey/test/started"
)

// agentLane runs the agent, watching the filesystem that is worked on, with some products.
type agentLane struct {
	w            *world
	products     int
	cached       bool
	guard, rules bool
	dir, state   string
	child        *started.Program
}

func (l *agentLane) hooks() bool  { return true }
func (l *agentLane) builds() bool { return l.guard || l.products == 0 && !l.rules }

// publicKey is the operator's whose tokens the host signed.
const publicKey = "/tests/operator.pub"

func (l *agentLane) start() error {
	var err error
	if l.dir, err = os.MkdirTemp("/run", "agent-"); err != nil {
		return err
	}
	l.state = filepath.Join(l.w.o.disk, "var/lib/bailey")
	config := ""
	if l.guard {
		key, err := os.ReadFile(publicKey)
		if err != nil {
			return err
		}
		config = fmt.Sprintf("[guard]\nenabled = \"on\"\n[operator]\nkeys = [%q]\nkey_dir = \"\"\n", strings.TrimSpace(string(key)))
	}
	if err := os.WriteFile(l.dir+"/agent.toml", []byte(config), 0o644); err != nil {
		return err
	}
	l.child, err = startService(l.dir+"/log", "/sys/fs/cgroup/system.slice/bailey.service", l.bailey(), "agent",
		"--config", l.dir+"/agent.toml", "--state", l.state, "--run", l.dir+"/run", "--watch", l.w.o.disk)
	if err != nil {
		return err
	}
	if err := l.child.Await(context.Background(), patience, l.ready); err != nil {
		return err
	}
	return l.install()
}

func (l *agentLane) bailey() string { return filepath.Join(l.w.o.disk, "bin/bailey") }

// ready fails until the agent serves and, if it is to have a guard, that is locked.
func (l *agentLane) ready() error {
	out, err := l.control("status")
	if err == nil && l.guard && !strings.Contains(out, "locked") {
		return fmt.Errorf("the guard is not locked: %s", out)
	}
	return err
}

// ruler installs rules for an executable, for writing and for names, and is never asked.
const ruler = `name = "ruler"
version = "1"
description = "installs rules; measures what they cost"
[run]
command = ["./product", "--events=", "--questions=", "--workers="]
[request]
rules = ["exec", "open_write", "unlink_rename"]
[settings]
rules = "exec exec 24h file=%[1]s/bin/bailey-forbidden; write open_write 24h below=%[1]s/kept; unlink unlink_rename 24h below=%[1]s/kept"
`

// install installs the lane's products and waits until all are live.
func (l *agentLane) install() error {
	cache := "none"
	if l.cached {
		cache = "file"
	}
	for i := range l.products {
		name := fmt.Sprintf("bench-%d", i+1)
		if err := l.product(name, "product", contender.Manifest(name, l.w.o.disk, cache)); err != nil {
			return err
		}
	}
	if !l.rules {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(l.w.o.disk, "kept"), 0o755); err != nil {
		return err
	}
	if err := copyProgram(filepath.Join(programs, "nothing"), filepath.Join(l.w.o.disk, "bin/bailey-forbidden")); err != nil {
		return err
	}
	if err := l.product("ruler", "faulty", fmt.Sprintf(ruler, l.w.o.disk)); err != nil {
		return err
	}
	return l.child.Await(context.Background(), patience, l.ruled)
}

// ruled fails until the three rules are enforced.
func (l *agentLane) ruled() error {
	out, err := l.control("rules", "--json")
	if err != nil {
		return err
	}
	var list struct{ Rules []struct{ Enforced bool } }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return fmt.Errorf("read the rules: %w", err)
	}
	n := 0
	for _, r := range list.Rules {
		if r.Enforced {
			n++
		}
	}
	if n != 3 {
		return fmt.Errorf("%d rules are enforced: %s", n, out)
	}
	if err := exec.Command(filepath.Join(l.w.o.disk, "bin/bailey-forbidden")).Run(); !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("what a rule forbids ran: %w", err)
	}
	return nil
}

// product installs one product and waits until it is live.
func (l *agentLane) product(name, program, manifest string) error {
	dir := filepath.Join(l.dir, "products", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := copyProgram(filepath.Join(programs, program), filepath.Join(dir, "product")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.toml"), []byte(manifest), 0o644); err != nil {
		return err
	}
	if _, err := l.control("product", "install", dir, "--yes"); err != nil {
		return err
	}
	return l.child.Await(context.Background(), patience, func() error {
		out, err := l.control("product", "show", name, "--json")
		if err != nil {
			return err
		}
		var shown struct {
			Product struct{ State, Authority string }
		}
		if err := json.Unmarshal([]byte(out), &shown); err != nil {
			return fmt.Errorf("read product %s: %w", name, err)
		}
		if shown.Product.State != "running" || shown.Product.Authority != "live" {
			return fmt.Errorf("product %s is %s, authority %s", name, shown.Product.State, shown.Product.Authority)
		}
		return nil
	})
}

// control runs the command line against this lane's agent.
func (l *agentLane) control(args ...string) (string, error) {
	cmd := exec.Command(l.bailey(), args...)
	cmd.Env = append(os.Environ(), "BAILEY_RUN="+l.dir+"/run", "NO_COLOR=1")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("bailey %s: %w: %s%s", strings.Join(args, " "), err, exit.Stderr, out)
	}
	return string(out), err
}

// stop ends the agent, with an operator's token where there is a guard, and all that it kept.
func (l *agentLane) stop() error {
	if l.child == nil {
		return nil
	}
	if l.guard {
		if len(l.w.tokens) == 0 {
			return errors.New("the host gave no token for this lane")
		}
		token := l.w.tokens[0]
		l.w.tokens = l.w.tokens[1:]
		if _, err := l.control("unlock", "--token", token); err != nil {
			return err
		}
	}
	if err := end(l.child); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(l.dir), os.RemoveAll(l.state))
}
