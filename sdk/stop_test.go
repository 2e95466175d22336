package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"bailey/sdk"
	"bailey/sdk/sdktest"
)

func TestStopLetsAnswersInFlightOut(t *testing.T) {
	entered, release := make(chan struct{}, 4), make(chan struct{})
	a := sdktest.New(t, sdk.Product{
		Questions: []sdk.Kind{sdk.Exec}, Workers: 4,
		OnQuestion: func(context.Context, *sdk.Question) sdk.Answer { entered <- struct{}{}; <-release; return sdk.Deny },
	})
	var all []*sdktest.Pending
	for range 4 {
		all = append(all, a.Begin(sdktest.Question{Kind: sdk.Exec, Path: "/bin/true"}))
		<-entered
	}
	stopped := make(chan error, 1)
	go func() { stopped <- a.Stop() }()
	select {
	case err := <-stopped:
		t.Fatalf("stopped with handlers at work: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(release)
	for _, p := range all {
		if got, ok := p.Wait(); !ok || !got.Denied() {
			t.Errorf("answer in flight: %v %t", got, ok)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestPanicEndsTheProductHonestly(t *testing.T) {
	everyWay(t, func(t *testing.T, o sdktest.Options, workers int) {
		var stderr bytes.Buffer
		entered, release := make(chan struct{}), make(chan struct{})
		p := sdk.Product{
			Name: "shaky", Questions: []sdk.Kind{sdk.Exec, sdk.Open}, Workers: workers, Stderr: &stderr,
			OnQuestion: func(_ context.Context, q *sdk.Question) sdk.Answer {
				if q.Kind == sdk.Exec {
					close(release)
					panic("cannot cope")
				}
				if workers != sdk.Inline {
					close(entered)
					<-release
				}
				return sdk.Deny
			},
		}
		ended := make(chan error, 1)
		a := sdktest.NewProcess(t, "shaky", o, func(ctx context.Context, fd int) error {
			ended <- sdk.RunSocket(ctx, fd, p)
			return nil
		})
		good := a.Begin(sdktest.Question{Kind: sdk.Open, Path: "/bin/true"})
		if workers != sdk.Inline {
			<-entered
		}
		bad := a.Begin(sdktest.Question{Kind: sdk.Exec, Path: "/bin/true"})
		if got, ok := good.Wait(); !ok || !got.Denied() {
			t.Errorf("the other answer: %v %t", got, ok)
		}
		if _, ok := bad.Wait(); ok {
			t.Error("the panic was turned into an answer")
		}
		var panicked *sdk.PanicError
		if err := <-ended; !errors.As(err, &panicked) || panicked.Value != "cannot cope" {
			t.Errorf("Run: %v", err)
		}
		if s := stderr.String(); !strings.Contains(s, "cannot cope") || !strings.Contains(s, "TestPanicEndsTheProductHonestly") {
			t.Errorf("standard error: %s", s)
		}
	})
}

func TestPanicInOnEvent(t *testing.T) {
	ended := make(chan error, 1)
	p := sdk.Product{Events: []sdk.Kind{sdk.Exec}, OnEvent: func(*sdk.Event) { panic("no") }, Stderr: io.Discard}
	a := sdktest.NewProcess(t, "", sdktest.Options{}, func(ctx context.Context, fd int) error {
		ended <- sdk.RunSocket(ctx, fd, p)
		return nil
	})
	go a.EmitOnly(&sdk.Event{Kind: sdk.Exec})
	var panicked *sdk.PanicError
	if err := <-ended; !errors.As(err, &panicked) {
		t.Errorf("Run: %v", err)
	}
}

func TestContextEndsRun(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	sdktest.NewProcess(t, "", sdktest.Options{}, func(_ context.Context, fd int) error {
		ended <- sdk.RunSocket(ctx, fd, sdk.Product{Questions: []sdk.Kind{sdk.Exec}, OnQuestion: deny})
		return nil
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

func TestOnReadyCanRefuse(t *testing.T) {
	refusal := errors.New("no such mode")
	err := session(t, sdk.Product{OnReady: func(*sdk.Session) error { return refusal }}, welcome(1, "x"))
	if !errors.Is(err, refusal) {
		t.Errorf("Run: %v", err)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	tests := map[string]struct {
		p    sdk.Product
		want string
	}{
		"question_without_handler": {sdk.Product{Questions: []sdk.Kind{sdk.Exec}}, "Questions without OnQuestion"},
		"event_without_handler":    {sdk.Product{Events: []sdk.Kind{sdk.Exec}}, "Events without OnEvent"},
		"fork_cannot_be_asked":     {sdk.Product{Questions: []sdk.Kind{sdk.Fork}, OnQuestion: deny}, "fork cannot be asked"},
		"other_name":               {sdk.Product{Name: "other"}, "correct the name in manifest.toml"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := session(t, tt.p, welcome(1, "x")); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Run: %v", err)
			}
		})
	}
	if err := session(t, sdk.Product{}, welcome(2, "x")); err == nil || !strings.Contains(err.Error(), "protocol 2") {
		t.Errorf("protocol 2: %v", err)
	}
	if err := session(t, sdk.Product{}, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("agent gone at once: %v", err)
	}
}

func TestRunOutsideOfBaileySaysWhatToDo(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BAILEY_TEST_RUN=1")
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, files := range map[string][]*os.File{"closed": nil, "no_socket": {null}} {
		c := *cmd
		c.ExtraFiles = files
		out, err := c.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "descriptor 3 is not a socket: start me through Bailey") {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
}
