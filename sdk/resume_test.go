package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	productv1 "bailey/api/product/v1"
	"bailey/sdk"
	"bailey/sdk/sdktest"
)

// Another agent takes over in the middle of events and questions, twice in a row: the events come on in order and are
// acknowledged, what the old agents asked is dropped, what the new one asks is answered. sdktest compares the numbers.
func TestResumeInMidStream(t *testing.T) {
	everyWay(t, func(t *testing.T, o sdktest.Options, workers int) {
		if workers == 0 {
			workers = 2
		}
		o.Window = 8
		var seen []string
		var stuck sync.WaitGroup
		var late atomic.Int32
		entered := make(chan struct{}, 100)
		a := sdktest.NewWith(t, sdk.Product{
			Events: []sdk.Kind{sdk.Exec}, Questions: []sdk.Kind{sdk.Exec, sdk.Open}, Workers: workers,
			OnEvent: func(e *sdk.Event) { seen = append(seen, strings.Clone(e.GetProcess().GetComm())) },
			OnLost:  func(_ *sdk.Session, l sdk.Lost) { seen = append(seen, fmt.Sprintf("lost %d-%d", l.From, l.To)) },
			OnQuestion: func(ctx context.Context, q *sdk.Question) sdk.Answer {
				if q.Kind == sdk.Exec {
					return sdk.Deny
				}
				stuck.Add(1)
				defer stuck.Done()
				entered <- struct{}{}
				<-ctx.Done()
				if !errors.Is(ctx.Err(), context.Canceled) {
					t.Errorf("the handler's context ended for %v", ctx.Err())
				}
				late.Add(1)
				return sdk.Deny
			},
		}, o)
		var want []string
		emit := func() {
			comm := fmt.Sprint("event-", len(want))
			want = append(want, comm)
			a.EmitOnly(&sdk.Event{Kind: sdk.Exec, Process: &sdk.Process{Comm: comm}})
		}
		var old []*sdktest.Pending
		for range 2 {
			for range 5 {
				emit()
			}
			if workers > 0 {
				for i := range 10 { // two are in handlers, the others wait
					old = append(old, a.Begin(sdktest.Question{Kind: sdk.Open, Path: "/bin/true"}))
					if i < 2 {
						<-entered
					}
				}
			}
			for range 3 {
				emit()
			}
			a.Resume()
			a.Lose(2, "agent_restart")
			want = append(want, "") // for a loss of two numbers, written below
			a.Resume()
			if got := a.Ask(sdk.Exec, nil, "/bin/true"); got != sdk.Deny {
				t.Errorf("after Resume: %v", got)
			}
		}
		a.Emit(&sdk.Event{Kind: sdk.Exec, Process: &sdk.Process{Comm: "last"}})
		if err := a.Stop(); err != nil {
			t.Fatal(err)
		}
		want = append(want, "last")
		for i := range want {
			if want[i] == "" {
				want[i] = fmt.Sprintf("lost %d-%d", i+1+i/9, i+2+i/9)
			}
		}
		if !slices.Equal(seen, want) {
			t.Errorf("saw  %q\nwant %q", seen, want)
		}
		for i, p := range old {
			if got, ok := p.Wait(); ok {
				t.Errorf("question %d of an agent that is gone was answered: %v", i, got)
			}
		}
		stuck.Wait()
		if n := late.Load(); workers > 0 && n != 4 {
			t.Errorf("%d handlers were at work when an agent ended, want 4", n)
		}
	})
}

// The reply repeats the subscription that counts now, and what the new agent says is what the product knows from then on.
func TestResumeKnowsTheNewAgent(t *testing.T) {
	states := make(chan string, 4)
	ready := make(chan *sdk.Session, 1)
	a := sdktest.New(t, sdk.Product{
		Events: []sdk.Kind{sdk.Exec}, OnEvent: func(*sdk.Event) {}, MutePaths: []string{"/proc"},
		OnReady: func(s *sdk.Session) error { ready <- s; return nil },
		OnState: func(s *sdk.Session) { states <- s.Authority() },
	})
	session := <-ready
	if err := session.Subscribe(sdk.Subscription{Events: []sdk.Kind{sdk.Exit}, MutePaths: []string{"/sys"}}); err != nil {
		t.Fatal(err)
	}
	a.SetAuthority("degraded", "late")
	if got := <-states; got != "degraded" {
		t.Errorf("authority %s", got)
	}
	a.Resume()
	if got := <-states; got != "live" {
		t.Errorf("authority after Resume %s", got)
	}
	a.Resume() // nothing changed: nothing is told
	if sub := a.Subscription(); !slices.Equal(sub.GetEvents(), []sdk.Kind{sdk.Exit}) || !slices.Equal(sub.GetMutePaths(), []string{"/sys"}) || !sub.GetResume() {
		t.Errorf("the subscription repeated: %v", sub)
	}
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	if len(states) != 0 {
		t.Errorf("authority told again: %s", <-states)
	}
}

func TestResumeOfAnotherProtocolEndsTheProduct(t *testing.T) {
	b, err := (&productv1.Welcome{Protocol: 2}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	err = session(t, sdk.Product{Stderr: io.Discard}, welcome(1, "x"), frame(productv1.Header{Kind: productv1.FrameResume, ID: 1}, b))
	if err == nil || !strings.Contains(err.Error(), "protocol 2") {
		t.Errorf("Run: %v", err)
	}
}
