package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// watched opens one file again and again, and takes note of every change between allowed and denied.
type watched struct {
	mu      sync.Mutex
	changes []bool // denied
	opens   atomic.Int64
}

func (w *watched) look(path string, done <-chan struct{}) {
	for {
		f, err := os.Open(path)
		if err == nil {
			_ = f.Close()
		}
		w.opens.Add(1)
		w.mu.Lock()
		if n := len(w.changes); n == 0 || w.changes[n-1] != denied(err) {
			w.changes = append(w.changes, denied(err))
		}
		w.mu.Unlock()
		select {
		case <-done:
			return
		default:
		}
	}
}

func (w *watched) seen() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprint(w.changes)
}

// TestPromotionUnderLoad: a release takes the place of the one before while thousands of questions a second are asked, and is taken back. None of them
// is left to a default, and what only the new one denies is denied from one moment on, to another one.
func TestPromotionUnderLoad(t *testing.T) {
	const (
		openers = 8
		pace    = 5000 // a second, for all openers
		stream  = "acme/engine/content"
		content = "content"
	)
	spec := engine("1.0.0", goodContent, nil)
	spec.Questions, spec.Events, spec.Limits = "open", "", "cpu = 2\n"
	a, v := followed(t, "[questions]\nopen_deadline = \"2s\"\n", "shadow = \"2s\"\nwatch = \"1m\"", spec, "engine/content")
	before := a.Product("engine")
	suspect := a.File("suspect", "x", 0o644)
	var files []string
	for i := range 200 {
		files = append(files, a.File(fmt.Sprintf("file-%d", i), "x", 0o644))
	}
	v.Content("engine", "2026.11.26.1", goodContent+"prefix "+suspect+"\n")

	counted := a.Status().GetQuestions()
	done := make(chan struct{})
	var w watched
	var opened, failed atomic.Int64
	var load sync.WaitGroup
	end := sync.OnceFunc(func() { close(done); load.Wait() })
	t.Cleanup(end)
	load.Go(func() { w.look(suspect, done) })
	begin := time.Now()
	for i := range openers {
		load.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for n := i; ; {
				select {
				case <-done:
					return
				case <-tick.C:
				}
				for float64(opened.Load()) < time.Since(begin).Seconds()*pace {
					f, err := os.Open(files[n%len(files)])
					if err != nil {
						failed.Add(1)
						continue
					}
					opened.Add(1)
					n++
					_ = f.Close()
				}
			}
		})
	}
	reaches(a, content, "2026.11.26.1", "watch")
	during := a.Product("engine")
	a.Must("update", "rollback", stream)
	reaches(a, content, "2026.11.26.1", "rolled_back")
	took := time.Since(begin)
	end()
	after := a.Product("engine")

	t.Logf("%d opens in %v, %.0f a second, and %d of the one file", opened.Load(), took.Round(time.Millisecond), float64(opened.Load())/took.Seconds(), w.opens.Load())
	if n := failed.Load(); n != 0 {
		t.Errorf("%d opens failed of files that no release denies", n)
	}
	if got, want := w.seen(), "[false true false]"; got != want {
		t.Errorf("what the new release denies was denied: %s, expected %s", got, want)
	}
	for reason, n := range a.Status().GetQuestions().GetByReason() {
		if n -= counted.GetByReason()[reason]; n != 0 && reason != "products" && reason != "cache" && reason != "share" && reason != "identity" {
			t.Errorf("%d questions were decided by %s", n, reason)
		}
	}
	if during.GetPid() == before.GetPid() || during.GetRelease() == before.GetRelease() {
		t.Errorf("while it was in force the product was %v", during)
	}
	if after.GetPid() != before.GetPid() || after.GetRelease() != before.GetRelease() || after.GetRestarts() != 0 {
		t.Errorf("the release before was started again: %v, it was %v", after, before)
	}
}

// TestShadow: what its rehearsal could not know shows beside the live release, on what the machine does now, and no answer of it counts.
func TestShadow(t *testing.T) {
	const stream, content = "acme/engine/content", "content"
	a, v := followed(t, "", "shadow = \"30s\"\nwatch = \"5s\"", engine("1.0.0", goodContent, nil), "engine/content")
	v.Content("engine", "2026.11.26.1", goodContent+"prefix "+a.Scratch+"/new\n")
	reaches(a, content, "2026.11.26.1", "shadow")
	a.Eventually("it is asked beside the live release", 20*time.Second, func() error {
		if p := a.Status().GetProducts(); len(p) != 1 {
			return errors.New("what runs beside a product is listed as one")
		}
		path := a.File("new-0", "x", 0o644) // made since: its rehearsal did not know it
		if _, err := os.ReadFile(path); err != nil {
			t.Errorf("a release without authority denies: %v", err)
		}
		if c := a.Stream("engine/content").GetUpdate().GetComparison(); c.GetCompared() == 0 || c.GetNewDeny().GetFiles() == 0 {
			return fmt.Errorf("compared: %v", c)
		}
		return nil
	})
	out := a.Must("update", "show", stream)
	for _, want := range []string{"beside the release in force", "denied by it, and allowed by the one in force", "/new-0"} {
		if !strings.Contains(out, want) {
			t.Errorf("it is shown as %s", out)
		}
	}
	for i := range 30 {
		if _, err := os.ReadFile(a.File(fmt.Sprintf("new-%d", i), "x", 0o644)); err != nil {
			t.Errorf("a release without authority denies: %v", err)
		}
	}
	s := reaches(a, content, "2026.11.26.1", "refused")
	if why := s.GetUpdate().GetReason(); !strings.HasPrefix(why, "shadow: it denies ") {
		t.Errorf("refused because of %q", why)
	}
	if left := a.Must("status", "--json"); strings.Contains(left, "engine.next") {
		t.Errorf("what ran beside is still there: %s", left)
	}
}

// TestCrashAfterPromotion: a fault that neither rehearsal nor shadow could meet kills a release that is in force. The one before has its authority back
// before a tenth of a second is over, and nobody has to do anything.
func TestCrashAfterPromotion(t *testing.T) {
	const content = "content"
	spec := engine("1.0.0", goodContent, nil)
	spec.Questions = "open"
	a, v := followed(t, "", "shadow = \"1s\"\nwatch = \"1m\"", spec, "engine/content")
	before := a.Product("engine")
	suspect, trigger := a.File("suspect", "x", 0o644), a.Scratch+"/trigger"
	v.Content("engine", "2026.11.26.1", goodContent+"instance "+trigger+fields+"pipe\nprefix "+suspect+"\n")
	reaches(a, content, "2026.11.26.1", "watch")
	if _, err := os.ReadFile(suspect); !denied(err) {
		t.Fatalf("the new release does not deny: %v", err)
	}
	a.File("trigger", "x", 0o644) // a question about it is the fault
	_, _ = os.ReadFile(trigger)
	began := time.Now()
	for {
		if _, err := os.ReadFile(suspect); err == nil {
			break
		}
		if time.Since(began) > 10*time.Second {
			t.Fatal("the release before does not come back")
		}
	}
	back := time.Since(began)
	t.Logf("the release before had its authority back after %v", back)
	if back > 100*time.Millisecond {
		t.Errorf("it took %v", back)
	}
	s := reaches(a, content, "2026.11.26.1", "rolled_back")
	if why := s.GetUpdate().GetReason(); !strings.Contains(why, "went back") || !strings.Contains(why, "exited with status") {
		t.Errorf("rolled back because of %q", why)
	}
	if p := a.Product("engine"); p.GetPid() != before.GetPid() || p.GetRelease() != before.GetRelease() || p.GetAuthority() != "live" {
		t.Errorf("in force is %v, it was %v", p, before)
	}
}
