package hub

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"bailey/agent/event"
)

// beside is a member that runs beside the product name.
func beside(name string) Member {
	m := everything(name + ".next")
	m.Release, m.Beside, m.Shadow = "2", name, true
	return m
}

func TestPromotionIsOneStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, e := newHub(t, nil)
		exec := Subscription{Questions: event.KindsOf(event.Exec)}
		var oldWire, nextWire wire
		old := attach(t, h, everything("p"), &oldWire, exec)
		next := attach(t, h, beside("p"), &nextWire, exec)
		o, n := event.ProductBit(old.Number()), event.ProductBit(next.Number())
		voters := func() *event.Voters { v, _ := h.Voters(&event.Question{Kind: event.Exec}); return v }
		if v := voters(); v.Live != o || v.Shadow != n || v.Names[next.Number()] != "p.next" {
			t.Fatalf("before: %+v", v)
		}
		h.SetBraked("p", true, "too much")
		before := voters()
		tap := h.Tap(event.KindsOf(event.Product), 64)
		e.take()

		m := everything("p")
		m.Release = "2"
		if err := h.Promote(next, m, old, "p.before"); err != nil {
			t.Fatal(err)
		}
		v := voters()
		if v.Live != n || v.Shadow != o || v.Names[next.Number()] != "p" || v.Names[old.Number()] != "p.before" {
			t.Errorf("after: %+v", v)
		}
		if v.Braked != n {
			t.Error("the brake was lost by the promotion")
		}
		if before.Live != o {
			t.Error("questions in flight are not the old release's any more")
		}
		want := []string{"renamed 0 p.before", "renamed 1 p", "invalidate promotion"}
		if d := cmp.Diff(want, e.take()); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"braked: too much", "shadow: another release took its place"}, authorities(t, tap)); d != "" {
			t.Error("events: " + d)
		}
		h.SetBraked("p", false, "released")

		// What took the place goes: the one before has it again, and nobody is without.
		e.take()
		h.Detach(next)
		if v := voters(); v.Live != o || v.Shadow != 0 || v.Names[old.Number()] != "p" || old.Stats().Release != "1" {
			t.Errorf("after the end of the new one: %+v", v)
		}
		if d := cmp.Diff([]string{"renamed 0 p", "gone 1", "renamed 1 ", "invalidate product_detached"}, e.take()); d != "" {
			t.Error(d)
		}
		again := attach(t, h, beside("p"), &wire{}, exec)
		if again.Number() != next.Number() {
			t.Errorf("number %d: the one that was free is %d", again.Number(), next.Number())
		}
	})
}

func TestPromotionWithoutAPredecessor(t *testing.T) {
	h, _ := newHub(t, nil)
	exec := Subscription{Questions: event.KindsOf(event.Exec)}
	old := attach(t, h, everything("p"), &wire{}, exec)
	next := attach(t, h, beside("p"), &wire{}, exec)
	h.Detach(old)
	if err := h.Promote(next, everything("p"), old, "p.before"); err != nil {
		t.Fatal(err)
	}
	v, _ := h.Voters(&event.Question{Kind: event.Exec})
	if v.Live != event.ProductBit(next.Number()) || v.Shadow != 0 {
		t.Errorf("%+v", v)
	}
	h.Detach(next)
	if err := h.Promote(next, everything("p"), nil, "p.before"); err == nil {
		t.Error("what is gone was promoted")
	}
}

// TestOneOfThemHasAuthority: whoever asks while two releases change places, ever so often, finds exactly one of them with authority and the other as a
// shadow.
func TestOneOfThemHasAuthority(t *testing.T) {
	h, _ := newHub(t, nil)
	exec := Subscription{Questions: event.KindsOf(event.Exec)}
	old := attach(t, h, everything("p"), &wire{}, exec)
	next := attach(t, h, beside("p"), &wire{}, exec)
	done := make(chan struct{})
	var askers sync.WaitGroup
	for range 4 {
		askers.Go(func() {
			for i := 0; ; i++ {
				v, _ := h.Voters(&event.Question{Kind: event.Exec})
				if v.Live.Len() != 1 || v.Shadow.Len() != 1 || v.Names[v.Live.First()] != "p" {
					t.Errorf("live %b, shadow %b", v.Live, v.Shadow)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range 2000 {
		to, from := next, old
		if i%2 == 1 {
			to, from = old, next
		}
		if err := h.Promote(to, everything("p"), from, "p.before"); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	askers.Wait()
	if old.heir != nil || next.heir == nil && old.standby != nil {
		t.Error("one that did harm is the heir of the one that came back")
	}
	if names := []string{old.Name(), next.Name()}; !slices.Contains(names, "p") || !slices.Contains(names, "p.before") {
		t.Errorf("they are called %q", names)
	}
}
