package selftest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	controlv1 "bailey/api/control/v1"
	"bailey/api/control/v1/client"
	"bailey/api/control/v1/controlv1connect"
	"bailey/internal/child"
	"bailey/internal/tail"

	"connectrpc.com/connect"
)

// agent is the second agent: this program, started as a child.
type agent struct {
	yard    *yard
	process *child.Process
	log     *tail.Buffer
	client  controlv1connect.ControlServiceClient
}

// startAgent starts the agent and waits until it serves.
func startAgent(ctx context.Context, program string, y *yard) (*agent, string, error) {
	file := filepath.Join(y.dir, "agent.toml")
	text := fmt.Sprintf("[questions]\nexec_deadline = %q\nopen_deadline = %q\ncritical_deadline = %q\nopen_scope = [%q]\n",
		execDeadline, openDeadline, openDeadline, y.scratch)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, "", fmt.Errorf("write its configuration: %w", err)
	}
	run := filepath.Join(y.dir, "run")
	log := &tail.Buffer{}
	cmd := exec.Command(program, "agent", "--config", file, "--state", filepath.Join(y.dir, "state"), "--run", run, "--watch", y.scratch)
	cmd.Stderr = log
	// A group of its own: an interrupt at the terminal is for this process, which then stops the agent in order. If this
	// process is killed, the agent is told to end; Run stays on its thread, because the death of that is what counts.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	p, err := child.Start(cmd)
	if err != nil {
		return nil, "", fmt.Errorf("start it: %w", err)
	}
	a := &agent{yard: y, process: p, log: log, client: client.New(filepath.Join(run, controlv1.SocketName))}
	var s *connect.Response[controlv1.StatusResponse]
	err = p.Until(ctx, func() (err error) {
		s, err = a.client.Status(ctx, connect.NewRequest(&controlv1.StatusRequest{}))
		return err
	})
	if err != nil {
		_, serr := a.stop()
		return nil, "", errors.Join(fmt.Errorf("%w; it said: %s", err, a.said()), serr)
	}
	return a, fmt.Sprintf("pid %d watches %s only", s.Msg.GetPid(), y.scratch), nil
}

// stopPatience is how long the agent may take to end.
const stopPatience = 15 * time.Second

// stop ends the agent as an operator does, and by force if it does not go.
func (a *agent) stop() (string, error) {
	if err := a.process.Stop(stopPatience); err != nil {
		return "", fmt.Errorf("%w; it said: %s", err, a.said())
	}
	return "in order", nil
}

// productName is the self-test's product.
const productName = "selftest"

// ProductWord is the argument that makes bailey the self-test's product.
const ProductWord = "selftest-product"

const manifest = `name = "selftest"
version = "1.0.0"
description = "answers the questions of bailey selftest"

[run]
command = ["./bailey", "` + ProductWord + `"]

[request]
see = ["exec"]
decide = ["exec", "open"]
deny = true
on_miss = "allow"
open_scope = [%q]
authority = "live"

[limits]
memory = "256MiB"
pids = 64
cpu = 1.0
files = 128
state = "1MiB"
log = "1MiB"
`

// installProduct installs a copy of program as a product and waits until its answers count.
func (a *agent) installProduct(ctx context.Context, program string) (string, error) {
	folder := filepath.Join(a.yard.dir, "product")
	if err := os.Mkdir(folder, 0o755); err != nil {
		return "", fmt.Errorf("make its folder: %w", err)
	}
	if err := copyFile(program, filepath.Join(folder, "bailey")); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(folder, "manifest.toml"), fmt.Appendf(nil, manifest, a.yard.scratch), 0o644); err != nil {
		return "", fmt.Errorf("write its manifest: %w", err)
	}
	plan, err := a.client.ProductPlan(ctx, connect.NewRequest(&controlv1.ProductPlanRequest{Path: folder}))
	if err != nil {
		return "", fmt.Errorf("plan its installation: %w", err)
	}
	if _, err := a.client.ProductInstall(ctx, connect.NewRequest(&controlv1.ProductInstallRequest{Path: folder, Approved: plan.Msg.GetHash()})); err != nil {
		return "", fmt.Errorf("install it: %w", err)
	}
	var detail string
	err = a.process.Until(ctx, func() error {
		r, err := a.client.ProductShow(ctx, connect.NewRequest(&controlv1.ProductShowRequest{Name: productName}))
		if err != nil {
			return err
		}
		p := r.Msg.GetProduct()
		if p.GetState() != "running" || p.GetAuthority() != "live" {
			return fmt.Errorf("it is %s with authority %s: %s", p.GetState(), p.GetAuthority(), p.GetReason())
		}
		detail = fmt.Sprintf("pid %d, uid %d", p.GetPid(), p.GetUid())
		return nil
	})
	return detail, err
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy the program: %w", err)
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return fmt.Errorf("copy the program: %w", err)
	}
	_, err = io.Copy(dst, src)
	if err = errors.Join(err, dst.Close()); err != nil {
		return fmt.Errorf("copy the program: %w", err)
	}
	return nil
}

// said is the end of the agent's log, on one line.
func (a *agent) said() string { return strings.ReplaceAll(a.log.String(), "\n", " | ") }
