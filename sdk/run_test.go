package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bailey/internal/leakcheck"
	"bailey/sdk"
	"bailey/sdk/sdktest"
)

func TestMain(m *testing.M) {
	if os.Getenv("BAILEY_TEST_RUN") != "" {
		if err := sdk.Run(context.Background(), sdk.Product{Name: "lonely"}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	leakcheck.Main(m)
}

// everyWay runs f over both transports, with workers and inline: what must hold must hold in all four.
func everyWay(t *testing.T, f func(t *testing.T, o sdktest.Options, workers int)) {
	for transport, stream := range map[string]bool{"seqpacket": false, "stream": true} {
		for mode, workers := range map[string]int{"pool": 0, "inline": sdk.Inline} {
			t.Run(transport+"_"+mode, func(t *testing.T) { f(t, sdktest.Options{Stream: stream}, workers) })
		}
	}
}

func TestAnswersAndTheFile(t *testing.T) {
	everyWay(t, func(t *testing.T, o sdktest.Options, workers int) {
		a := sdktest.NewWith(t, sdk.Product{
			Questions: []sdk.Kind{sdk.Exec, sdk.Open}, Workers: workers,
			OnQuestion: func(_ context.Context, q *sdk.Question) sdk.Answer {
				b, err := io.ReadAll(io.NewSectionReader(q.Reader(), 0, q.File.GetSize()))
				if err != nil {
					t.Errorf("read: %v", err)
				}
				if d := time.Until(q.Deadline()); d < time.Second || d > 2*time.Minute {
					t.Errorf("deadline in %v", d)
				}
				answer := sdk.Allow
				if bytes.Contains(b, []byte("bad")) {
					answer = sdk.Deny
				}
				if q.Shadow() != (q.Kind == sdk.Open) || q.Critical() != (q.Kind == sdk.Open) {
					t.Errorf("%s: shadow %t critical %t", q.Kind, q.Shadow(), q.Critical())
				}
				return answer.CacheFile()
			},
		}, o)
		for content, want := range map[string]sdk.Answer{"good": sdk.Allow.CacheFile(), "bad": sdk.Deny.CacheFile()} {
			if got := a.AskContent(sdk.Exec, nil, "f", []byte(content)); got != want {
				t.Errorf("%s: %v, want %v", content, got, want)
			}
		}
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte("bad"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := a.AskQuestion(sdktest.Question{Kind: sdk.Open, Path: path, Shadow: true, Critical: true}); !got.Denied() {
			t.Errorf("shadow: %v", got)
		}
	})
}

func TestManyQuestionsAtOnceKeepTheirFiles(t *testing.T) {
	everyWay(t, func(t *testing.T, o sdktest.Options, workers int) {
		a := sdktest.NewWith(t, sdk.Product{
			Questions: []sdk.Kind{sdk.Open}, Workers: workers,
			OnQuestion: func(_ context.Context, q *sdk.Question) sdk.Answer {
				b := make([]byte, 4096)
				n, err := q.Reader().ReadAt(b, 0)
				if err != nil && !errors.Is(err, io.EOF) {
					t.Errorf("read: %v", err)
				}
				if string(b[:n]) != q.File.GetPath() {
					t.Errorf("the descriptor of %s reads %q", q.File.GetPath(), b[:n])
				}
				return sdk.Allow
			},
		}, o)
		dir := t.TempDir()
		var all []*sdktest.Pending
		for i := range 300 {
			path := filepath.Join(dir, fmt.Sprint(i))
			if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
				t.Fatal(err)
			}
			all = append(all, a.Begin(sdktest.Question{Kind: sdk.Open, Path: path}))
		}
		for _, p := range all {
			if _, ok := p.Wait(); !ok {
				t.Fatal("no answer")
			}
		}
	})
}

func TestEventsComeInOrderAndLossIsTold(t *testing.T) {
	everyWay(t, func(t *testing.T, o sdktest.Options, workers int) {
		o.Window = 8
		var seen []string
		var kept []*sdk.Event
		a := sdktest.NewWith(t, sdk.Product{
			Events: []sdk.Kind{sdk.Exec}, Workers: workers,
			OnEvent: func(e *sdk.Event) {
				seen = append(seen, strings.Clone(e.GetProcess().GetComm()))
				kept = append(kept, sdk.Clone(e))
			},
			OnLost: func(_ *sdk.Session, l sdk.Lost) {
				seen = append(seen, fmt.Sprintf("lost %d-%d %s", l.From, l.To, l.Cause))
			},
		}, o)
		var want []string
		emit := func(n int) {
			var events []*sdk.Event
			for range n {
				comm := fmt.Sprintf("event-%d", len(want))
				want = append(want, comm)
				events = append(events, &sdk.Event{Kind: sdk.Exec, Process: &sdk.Process{Comm: comm, Executable: &sdk.File{Path: "/" + comm}}})
			}
			a.Emit(events...)
		}
		emit(50)
		a.Lose(100, "full")
		want = append(want, "lost 51-150 full")
		emit(50)
		if err := a.Stop(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(seen, want) {
			t.Errorf("saw  %q\nwant %q", seen, want)
		}
		for _, e := range kept {
			if got := e.GetProcess().GetExecutable().GetPath(); got != "/"+e.GetProcess().GetComm() {
				t.Fatalf("a clone changed: %s", got)
			}
		}
	})
}

// Design §4: notify events never block a question.
func TestSlowEventsDoNotDelayAQuestion(t *testing.T) {
	everyWay(t, func(t *testing.T, o sdktest.Options, workers int) {
		release := make(chan struct{})
		entered := make(chan struct{})
		var once sync.Once
		a := sdktest.NewWith(t, sdk.Product{
			Events: []sdk.Kind{sdk.Exec}, Questions: []sdk.Kind{sdk.Exec}, Workers: workers,
			OnEvent:    func(*sdk.Event) { once.Do(func() { close(entered) }); <-release },
			OnQuestion: func(context.Context, *sdk.Question) sdk.Answer { return sdk.Deny },
		}, o)
		emitted := make(chan struct{})
		go func() { defer close(emitted); a.Emit(make([]*sdk.Event, 40)...) }()
		<-entered
		for range 100 {
			if got := a.Ask(sdk.Exec, nil, "/bin/true"); got != sdk.Deny {
				t.Fatal(got)
			}
		}
		close(release)
		<-emitted
	})
}

func TestWithdrawnAndDeadlineEndTheContext(t *testing.T) {
	for _, stream := range []bool{false, true} {
		started, ended := make(chan struct{}), make(chan error, 1)
		a := sdktest.NewWith(t, sdk.Product{
			Questions: []sdk.Kind{sdk.Exec},
			OnQuestion: func(ctx context.Context, q *sdk.Question) sdk.Answer {
				if ctx.Err() != nil {
					t.Errorf("ended before: %v", ctx.Err())
				}
				started <- struct{}{}
				child, cancel := context.WithCancel(ctx)
				defer cancel()
				<-child.Done()
				if cause := context.Cause(child); !errors.Is(cause, context.Cause(ctx)) {
					t.Errorf("a child ended because %v, the context because %v", cause, context.Cause(ctx))
				}
				ended <- errors.Join(ctx.Err(), context.Cause(ctx))
				return sdk.Allow
			},
		}, sdktest.Options{Stream: stream})
		p := a.Begin(sdktest.Question{Kind: sdk.Exec, Path: "/bin/true"})
		<-started
		p.Withdraw()
		if err := <-ended; !errors.Is(err, context.Canceled) || !errors.Is(err, sdk.ErrWithdrawn) {
			t.Errorf("withdrawn: %v", err)
		}
		p = a.Begin(sdktest.Question{Kind: sdk.Exec, Path: "/bin/true", Deadline: 10 * time.Millisecond})
		<-started
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("deadline: %v", err)
		}
		if _, ok := p.Wait(); !ok {
			t.Error("no late answer")
		}
	}
}

func TestWithdrawnBeforeItsTurnIsNotHandled(t *testing.T) {
	release, handled := make(chan struct{}), atomic.Int32{}
	a := sdktest.New(t, sdk.Product{
		Questions: []sdk.Kind{sdk.Exec}, Workers: 1,
		OnQuestion: func(context.Context, *sdk.Question) sdk.Answer { handled.Add(1); <-release; return sdk.Allow },
	})
	first := a.Begin(sdktest.Question{Kind: sdk.Exec, Path: "/bin/true"})
	second := a.Begin(sdktest.Question{Kind: sdk.Exec, Path: "/bin/true"})
	second.Withdraw()
	a.SendUnknown(60)
	a.WaitUnsupported(1)
	close(release)
	if _, ok := first.Wait(); !ok {
		t.Fatal("no answer")
	}
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	if n := handled.Load(); n != 1 {
		t.Errorf("%d questions handled, 1 was not withdrawn", n)
	}
}

func TestExtend(t *testing.T) {
	everyWay(t, func(t *testing.T, o sdktest.Options, workers int) {
		a := sdktest.NewWith(t, sdk.Product{
			Questions: []sdk.Kind{sdk.Exec}, Workers: workers,
			OnQuestion: func(ctx context.Context, q *sdk.Question) sdk.Answer {
				if err := q.Extend(time.Minute); err != nil {
					t.Error(err)
				}
				if d := time.Until(q.Deadline()); d < 50*time.Second {
					t.Errorf("deadline in %v after Extend", d)
				}
				return sdk.Allow
			},
		}, o)
		p := a.Begin(sdktest.Question{Kind: sdk.Exec, Path: "/bin/true", Deadline: time.Second})
		p.Wait()
		if d := p.Extended(); d < 50*time.Second || d > time.Minute {
			t.Errorf("extended by %v", d)
		}
	})
}

func TestSessionKnowsWhatTheAgentSaid(t *testing.T) {
	everyWay(t, func(t *testing.T, o sdktest.Options, workers int) {
		states := make(chan string, 4)
		var session *sdk.Session
		o.Settings = map[string]string{"mode": "monitor"}
		a := sdktest.NewWith(t, sdk.Product{
			Name: "x", Events: []sdk.Kind{sdk.Exec}, OnEvent: func(*sdk.Event) {}, Workers: workers, MutePaths: []string{"/proc"},
			OnReady: func(s *sdk.Session) error { session = s; states <- s.Authority(); return nil },
			OnState: func(s *sdk.Session) { states <- s.Authority() + " " + s.Reason() },
		}, o)
		a.SetAuthority("degraded", "late")
		if got := []string{<-states, <-states}; !slices.Equal(got, []string{"live", "degraded late"}) {
			t.Errorf("authority %q", got)
		}
		if session.Settings()["mode"] != "monitor" || !session.Granted().GetDeny() || session.Budget(sdk.Exec) == 0 || session.Name() != "x" {
			t.Errorf("session: %v %v", session.Settings(), session.Granted())
		}
		if got := a.Subscription().GetMutePaths(); !slices.Equal(got, []string{"/proc"}) {
			t.Errorf("mute paths %q", got)
		}
		if err := session.Report(sdk.Finding{Rule: "r", Title: "t", Severity: sdk.High, Fields: map[string]string{"k": "v"}}); err != nil {
			t.Fatal(err)
		}
		if f := a.WaitFindings(1); f[0].Rule != "r" || f[0].Fields["k"] != "v" || f[0].Severity != sdk.High {
			t.Errorf("finding %+v", f)
		}
		if err := session.Report(sdk.Finding{Title: strings.Repeat("x", 20_000)}); err == nil {
			t.Error("a finding of 20,000 bytes was sent")
		}
	})
}

func TestUnknownFrameIsAnsweredUnsupported(t *testing.T) {
	everyWay(t, func(t *testing.T, o sdktest.Options, workers int) {
		a := sdktest.NewWith(t, sdk.Product{Questions: []sdk.Kind{sdk.Exec}, Workers: workers, OnQuestion: deny}, o)
		a.SendUnknown(63)
		if got := a.Ask(sdk.Exec, nil, "/bin/true"); got != sdk.Deny {
			t.Errorf("after an unknown frame: %v", got)
		}
		if err := a.Stop(); err != nil {
			t.Fatal(err)
		}
		if got := a.Unsupported(); !slices.Equal(got, []uint32{63}) {
			t.Errorf("unsupported %v", got)
		}
	})
}

func TestRules(t *testing.T) {
	everyWay(t, func(t *testing.T, o sdktest.Options, workers int) {
		ready := make(chan *sdk.Session, 1)
		ended := make(chan string, 1)
		o.Grants = &sdk.Grants{Rules: []string{sdk.RuleExec}}
		a := sdktest.NewWith(t, sdk.Product{
			Workers: workers, OnReady: func(s *sdk.Session) error { ready <- s; return nil },
			OnRule: func(_ *sdk.Session, st *sdk.RuleStatus) { ended <- st.GetId() + " " + st.GetState() },
		}, o)
		session, ctx := <-ready, context.Background()
		rule := sdk.Rule{ID: "a", Action: sdk.RuleExec, Match: &sdk.RuleMatch{File: "/tmp/x"}, Lease: time.Hour}
		if until, err := session.InstallRule(ctx, rule); err != nil || until == 0 {
			t.Errorf("until %d: %v", until, err)
		}
		if m := a.Rules()["a"]; m.GetMatch().GetFile() != "/tmp/x" || m.GetLease() != uint64(time.Hour) {
			t.Errorf("the agent has %v", m)
		}
		var refused *sdk.RuleError
		rule.Action = sdk.RuleConnect
		if _, err := session.InstallRule(ctx, rule); !errors.As(err, &refused) || refused.Class != "not_granted" {
			t.Errorf("without a grant: %v", err)
		}
		if err := session.RemoveRule(ctx, "b"); !errors.As(err, &refused) || refused.Class != "not_found" {
			t.Errorf("a rule that there is not: %v", err)
		}
		if err := session.RemoveRule(ctx, "a"); err != nil || len(a.Rules()) != 0 {
			t.Errorf("%v, left %v", err, a.Rules())
		}
		a.EndRule("c", "expired")
		if got := <-ended; got != "c expired" {
			t.Errorf("told %q", got)
		}
		rule.Match.File = strings.Repeat("x", 5000)
		if _, err := session.InstallRule(ctx, rule); err == nil {
			t.Error("a rule of 5,000 bytes was sent")
		}
		if err := a.Stop(); err != nil {
			t.Fatal(err)
		}
		rule.Match.File = "/tmp/x"
		if _, err := session.InstallRule(ctx, rule); err == nil {
			t.Error("a rule was installed after the end")
		}
	})
}

func deny(context.Context, *sdk.Question) sdk.Answer { return sdk.Deny }

// A panic is told, ends the product and does not lose what other handlers are about to say.
