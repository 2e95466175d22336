package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	controlv1 "bailey/api/control/v1"
	"bailey/api/control/v1/client"
	"bailey/api/control/v1/controlv1connect"
	productv1 "bailey/api/product/v1"
	"bailey/internal/child"
	"bailey/internal/launch"

	"connectrpc.com/connect"
)

// try looks whether the agent serves its operator, and hears of a program that is executed and of a file that is written.
func try(ctx context.Context, p *child.Process, c Config, run, scratch string) error {
	// Its filesystems are seen through it alone.
	root := fmt.Sprintf("/proc/%d/root", p.PID())
	agent := client.New(filepath.Join(root, run, controlv1.SocketName))
	var status *controlv1.StatusResponse
	err := p.Until(ctx, func() error {
		r, err := agent.Status(ctx, connect.NewRequest(&controlv1.StatusRequest{}))
		if err == nil {
			status = r.Msg
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("it does not serve: %w", err)
	}
	if v := strings.TrimPrefix(status.GetVersion(), "v"); v != c.Version {
		return fmt.Errorf("it says that it is version %s", v)
	}
	if err := hears(ctx, p, agent, c.Program, filepath.Join(root, scratch, "written")); err != nil {
		return err
	}
	r, err := agent.Health(ctx, connect.NewRequest(&controlv1.HealthRequest{}))
	if err != nil {
		return fmt.Errorf("it does not say how it is: %w", err)
	}
	var failed []string
	for _, e := range r.Msg.GetEntries() {
		if e.GetStatus() == "failed" && !slices.Contains(c.Failed, e.GetComponent()) {
			failed = append(failed, e.GetComponent()+": "+e.GetSummary())
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("parts of it fail here that do not fail now: %s", words(failed))
	}
	return nil
}

// hears has the sensors work on this kernel, and proves that they do.
func hears(ctx context.Context, p *child.Process, agent controlv1connect.ControlServiceClient, program, file string) error {
	ctx, cancel := context.WithCancel(ctx)
	s, err := agent.Events(ctx, connect.NewRequest(&controlv1.EventsRequest{Kinds: []string{"exec", "close_write"}}))
	if err != nil {
		cancel()
		return fmt.Errorf("ask it for events: %w", err)
	}
	var h heard
	var reading sync.WaitGroup
	reading.Go(func() {
		for s.Receive() {
			h.take(s.Msg().GetEvent(), filepath.Base(file))
		}
	})
	defer reading.Wait()
	defer cancel()
	return p.Until(ctx, func() error { // what happens before the sensors are attached is not heard of
		if err := errors.Join(os.WriteFile(file, []byte("x"), 0o600), launch.Run(exec.CommandContext(ctx, program, "version"))); err != nil {
			return err
		}
		return h.missing()
	})
}

// heard is which events came.
type heard struct {
	mu            sync.Mutex
	exec, written bool
}

func (h *heard) take(e *productv1.Event, written string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case e.GetExec() != nil:
		h.exec = true
	case filepath.Base(e.GetFile().GetFile().GetPath()) == written:
		h.written = true
	}
}

func (h *heard) missing() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !h.exec:
		return errors.New("it heard of no program that was executed: its programs do not work in this kernel")
	case !h.written:
		return errors.New("it heard of no file that was written")
	}
	return nil
}
