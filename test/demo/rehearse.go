package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// rehearse does what explain tells the operator to try, checks what happens, and goes on showing the live view until the time
// is over.
func (d *demo) rehearse(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.o.duration)
	defer cancel()
	view := make(chan error, 1)
	go func() { view <- d.show(ctx) }()
	var errs []error
	for _, try := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"an unknown binary in lockdown is refused", d.tryUnknown},
		{"an installed program runs", func(ctx context.Context) error { return exec.CommandContext(ctx, "/bin/ls", "/").Run() }},
		{"the EICAR test file is refused", d.tryEicar},
		{"a killed product comes back and nothing else changes", d.tryKill},
		{"the unknown binary is refused again", d.tryUnknownSoon},
	} {
		begin := time.Now()
		err := try.do(ctx)
		word := "ok"
		if err != nil {
			word = "FAILED: " + err.Error()
			errs = append(errs, fmt.Errorf("%s: %w", try.what, err))
		}
		fmt.Printf("run: %s: %s (%v)\n", try.what, word, time.Since(begin).Round(time.Millisecond))
	}
	if len(errs) > 0 {
		cancel()
		fmt.Println("the agent's log:\n" + d.agent.Output())
	}
	if err := <-view; err != nil {
		errs = append(errs, err)
	}
	if err := d.undo(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, d.nothingLeft())...)
}

// tryUnknown copies a program to where only known programs may run.
func (d *demo) tryUnknown(ctx context.Context) error {
	text, err := os.ReadFile("/bin/ls")
	if err != nil {
		return err
	}
	program := filepath.Join(d.lockdown(), "unknown")
	_ = os.Remove(program)
	if err := os.WriteFile(program, append(text, "unknown"...), 0o755); err != nil {
		return err
	}
	err = exec.CommandContext(ctx, program, "/").Run()
	if !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("it was not refused: %w", orNone(err))
	}
	return nil
}

// tryUnknownSoon waits until the product that came back has read the package database; until then it reports what it could
// not judge in time, and its grant's default counts.
func (d *demo) tryUnknownSoon(ctx context.Context) error {
	for {
		err := d.tryUnknown(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func (d *demo) tryEicar(context.Context) error {
	file := filepath.Join(d.lockdown(), "eicar")
	if err := os.WriteFile(file, []byte(eicar()), 0o644); err != nil {
		return err
	}
	if _, err := os.ReadFile(file); !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("it was not refused: %w", orNone(err))
	}
	return nil
}

// tryKill kills a product and waits until another process of it runs.
func (d *demo) tryKill(ctx context.Context) error {
	before, err := d.pid(ctx, "allowlist")
	if err != nil {
		return err
	}
	other, err := d.pid(ctx, "clamav")
	if err != nil {
		return err
	}
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill the product: %w", err)
	}
	for {
		now, err := d.pid(ctx, "allowlist")
		if err == nil && now != before {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it did not come back: %w", orNone(err))
		case <-time.After(100 * time.Millisecond):
		}
	}
	now, err := d.pid(ctx, "clamav")
	if err == nil && now != other {
		return fmt.Errorf("the other product changed too: pid %d was %d", now, other)
	}
	return err
}

// orNone lets a missing error be part of a message.
func orNone(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}

// pid returns the process of a product.
func (d *demo) pid(ctx context.Context, name string) (int, error) {
	p, err := d.product(ctx, name)
	return int(p.GetPid()), err
}

// cgroups returns the cgroups of agents, in the hierarchies of version 1 and in version 2's.
func cgroups() []string {
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup/*bailey*", "/sys/fs/cgroup/*/*bailey*"} {
		found, err := filepath.Glob(pattern)
		if err == nil {
			out = append(out, found...)
		}
	}
	return out
}

// nothingLeft fails when the demo left something on the machine.
func (d *demo) nothingLeft() error {
	var left []string
	if _, err := os.Stat(d.o.dir); err == nil {
		left = append(left, d.o.dir)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("look for what is left: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, d.o.dir) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	if d.agent != nil && syscall.Kill(d.agent.PID(), 0) == nil {
		left = append(left, fmt.Sprintf("the agent, pid %d", d.agent.PID()))
	}
	for _, c := range cgroups() {
		if !slices.Contains(d.cgroups, c) {
			left = append(left, "cgroup "+c)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("left behind: %s", strings.Join(left, "; "))
	}
	fmt.Println("run: nothing left behind")
	return nil
}
