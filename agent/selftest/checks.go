package selftest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	controlv1 "bailey/api/control/v1"
	productv1 "bailey/api/product/v1"

	"connectrpc.com/connect"
)

// observe taps events of the kinds, does something, and returns the first event that fits.
func (a *agent) observe(ctx context.Context, kinds []string, do func() error, fits func(*productv1.Event) bool) (*productv1.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := a.client.Events(ctx, connect.NewRequest(&controlv1.EventsRequest{Kinds: kinds}))
	if err != nil {
		return nil, fmt.Errorf("tap the events: %w", err)
	}
	defer func() { _ = s.Close() }()
	if !s.Receive() { // the first response says that the tap is in place
		return nil, fmt.Errorf("tap the events: %w", s.Err())
	}
	if err := do(); err != nil {
		return nil, err
	}
	for s.Receive() {
		if e := s.Msg().GetEvent(); e != nil && fits(e) {
			return e, nil
		}
	}
	return nil, fmt.Errorf("the event did not come: %w", s.Err())
}

// runs starts a program and returns what exec said; how the program ended is its own affair.
func runs(path string) error {
	err := exec.Command(path).Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

func (a *agent) eventSeen(ctx context.Context) (string, error) {
	path, err := a.yard.script(knownName)
	if err != nil {
		return "", err
	}
	e, err := a.observe(ctx, []string{"exec"}, func() error { return runs(path) }, func(e *productv1.Event) bool {
		return e.GetExec().GetScript() == path || e.GetProcess().GetExecutable().GetPath() == path || len(e.GetExec().GetArgv()) > 1 && e.GetExec().GetArgv()[1] == path
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("exec of %s by pid %d", knownName, e.GetProcess().GetKey().GetPid()), nil
}

// verdictOn fits verdicts on a file.
func verdictOn(path string) func(*productv1.Event) bool {
	return func(e *productv1.Event) bool { return e.GetVerdict().GetFile().GetPath() == path }
}

func (a *agent) unknownRefused(ctx context.Context) (string, error) {
	path, err := a.yard.script(unknownName)
	if err != nil {
		return "", err
	}
	var said error
	e, err := a.observe(ctx, []string{"verdict"}, func() error { said = runs(path); return nil }, func(e *productv1.Event) bool {
		// The verdict on opening it for writing, just before, may come late.
		return verdictOn(path)(e) && e.GetVerdict().GetAsked() == productv1.Kind_exec
	})
	if err != nil {
		return "", err
	}
	switch {
	case said == nil:
		return "", errors.New("the program ran")
	case !errors.Is(said, syscall.EPERM):
		return "", fmt.Errorf("exec did not say EPERM: %w", said)
	}
	if e.GetVerdict().GetAllow() || e.GetVerdict().GetReason() != "products" {
		return "", fmt.Errorf("the verdict was allow %v by %s", e.GetVerdict().GetAllow(), e.GetVerdict().GetReason())
	}
	return fmt.Sprintf("EPERM, decided in %s", time.Duration(e.GetVerdict().GetLatency())), nil
}

func (a *agent) descriptorReadable(ctx context.Context) (string, error) {
	content := rand.Text()
	path, err := a.yard.write(secretName, content, 0o600)
	if err != nil {
		return "", err
	}
	e, err := a.observe(ctx, []string{"finding"}, func() error { return read(path) }, func(e *productv1.Event) bool {
		return e.GetFinding().GetRule() == secretRule
	})
	if err != nil {
		return "", err
	}
	fields := e.GetFinding().GetFields()
	if fields["content"] != content {
		return "", fmt.Errorf("the product read %q through the descriptor, want %q (%s)", fields["content"], content, fields["read"])
	}
	if fields["open_by_path"] == fmt.Sprint(error(nil)) {
		return "", errors.New("the product could open root's file by its path")
	}
	return "an unprivileged product read root's file, and could not open it", nil
}

// read opens and reads a file.
func read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(io.Discard, f)
	return err
}

// asked returns how many questions the kernel has asked the agent.
func (a *agent) asked(ctx context.Context) (uint64, error) {
	s, err := a.client.Status(ctx, connect.NewRequest(&controlv1.StatusRequest{}))
	if err != nil {
		return 0, fmt.Errorf("count the questions: %w", err)
	}
	return s.Msg.GetQuestions().GetAsked(), nil
}

// askedBy returns how many questions do costs.
func (a *agent) askedBy(ctx context.Context, do func() error) (uint64, error) {
	before, err := a.asked(ctx)
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := a.asked(ctx)
	return after - before, err
}

func (a *agent) cachedNotAsked(ctx context.Context) (string, error) {
	path, err := a.yard.write(cachedName, "the same every time", 0o644)
	if err != nil {
		return "", err
	}
	// The first open is answered before its mark is set, so the mark may take one more.
	if err := a.process.Until(ctx, func() error {
		n, err := a.askedBy(ctx, func() error { return read(path) })
		if err == nil && n > 0 {
			err = errors.New("the verdict is not cached")
		}
		return err
	}); err != nil {
		return "", err
	}
	var n uint64
	var took time.Duration
	// The word that the file's writer closed it comes asynchronously and takes the mark away once; then it is set for good.
	for range 3 {
		start := time.Now()
		n, err = a.askedBy(ctx, func() error {
			for range cachedOpens {
				if err := read(path); err != nil {
					return err
				}
			}
			return nil
		})
		took = time.Since(start)
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
	}
	if n > 0 {
		return "", fmt.Errorf("%d of %d opens were asked about", n, cachedOpens)
	}
	return fmt.Sprintf("%d opens, none asked, %s each", cachedOpens, (took / cachedOpens).Round(100*time.Nanosecond)), nil
}

func (a *agent) changedAsked(ctx context.Context) (string, error) {
	// Writing opens the file once, which is asked about or not; the read after it must be.
	path, err := a.yard.write(cachedName, "something else", 0o644)
	if err != nil {
		return "", err
	}
	n, err := a.askedBy(ctx, func() error { return read(path) })
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "", errors.New("the changed file was not asked about")
	}
	return "the write dropped the cached verdict", nil
}

func (a *agent) lateDefaulted(ctx context.Context) (string, error) {
	path, err := a.yard.write(lateName, "", 0o644)
	if err != nil {
		return "", err
	}
	var took time.Duration
	e, err := a.observe(ctx, []string{"verdict"}, func() error {
		start := time.Now()
		err := read(path)
		took = time.Since(start)
		return err
	}, verdictOn(path))
	if err != nil {
		return "", err
	}
	if e.GetVerdict().GetReason() != "default" || !e.GetVerdict().GetAllow() {
		return "", fmt.Errorf("the verdict was allow %v by %s, want allow by default", e.GetVerdict().GetAllow(), e.GetVerdict().GetReason())
	}
	if took > openDeadline+grace {
		return "", fmt.Errorf("the opener waited %s, the deadline is %s", took, openDeadline)
	}
	return fmt.Sprintf("allowed after %s, deadline %s", took.Round(100*time.Microsecond), openDeadline), nil
}
