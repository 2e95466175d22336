package client

import (
	"strings"
	"testing"
	"time"

	"bailey/update/release"
)

// disable has the recovery policy disable one release of the stream.
func (w *world) disable(s release.Stream, v string) {
	w.repo.policy = release.Policy{Schema: 1, Disabled: []release.Disabled{{Vendor: s.Vendor, Product: s.Product, Kind: s.Kind, Version: version(v), Reason: "crashes"}}}
}

// TestTheMachineWentBackByItself: what was committed and is not in force any more ends as rolled back, and is not tried again.
func TestTheMachineWentBackByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	w.offer(content, "1", map[string]string{"rules": "one"}, nil)
	w.settle(content)
	w.offer(content, "2", map[string]string{"rules": "two"}, nil)
	w.settle(content)
	w.host.names = w.host.names[:len(w.host.names)-1]
	w.boot()
	if u := w.settle(content); u.State != RolledBack || u.version() != "2" || !strings.Contains(u.Reason, "by itself") {
		t.Fatalf("%+v", u)
	}
	r := w.status(content).Record
	if r.Installed != "1" || !strings.Contains(r.Bad["2"], "by itself") {
		t.Errorf("%+v", r)
	}
	w.step()
	if u := w.settle(content); u.State != RolledBack || w.inForce() != "7.1 with one" {
		t.Errorf("later: %+v, %s", u, w.inForce())
	}
	w.offer(content, "3", map[string]string{"rules": "three"}, nil)
	if u := w.settle(content); u.State != Committed || w.inForce() != "7.1 with three" {
		t.Errorf("the next: %+v, %s", u, w.inForce())
	}
}

// TestTheMachineWentBackWhileAnotherWasOnItsWay: that one begins anew, on what is in force.
func TestTheMachineWentBackWhileAnotherWasOnItsWay(t *testing.T) {
	t.Parallel()
	for _, at := range []State{Rehearse, Promote} {
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		w.offer(content, "1", map[string]string{"rules": "one"}, nil)
		w.settle(content)
		w.offer(content, "2", map[string]string{"rules": "two"}, nil)
		w.until(content, at)
		w.host.names = w.host.names[:len(w.host.names)-1]
		w.boot()
		w.settle(content)
		w.settle(content)
		r := w.status(content).Record
		if w.inForce() != "7.1 with two" || r.Installed != "2" || !strings.Contains(r.Bad["1"], "by itself") {
			t.Errorf("at %s: %s, %+v", at, w.inForce(), r)
		}
		if told := strings.Join(w.told, ", "); !strings.Contains(told, "2 superseded, 1 roll_back, 1 rolled_back, 2 fetch") {
			t.Errorf("at %s: %s", at, told)
		}
	}
}

// TestWatchedOnceItRuns: a release that is put in force while no product runs is not committed before it was watched.
func TestWatchedOnceItRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	w.host.off = true
	w.offer(content, "1", map[string]string{"rules": "one"}, nil)
	w.until(content, Watch)
	for range 100 {
		w.now = w.now.Add(time.Minute)
		w.step()
	}
	if u := w.update(content); u.State != Watch || w.inForce() != "7.1 with one" {
		t.Fatalf("%+v, %s", u, w.inForce())
	}
	w.host.off, w.host.harm = false, "it ended"
	if u := w.settle(content); u.State != RolledBack || w.inForce() != "7.1 with old" {
		t.Errorf("%+v, %s", u, w.inForce())
	}
}

func TestTheRecoveryPolicyIsObeyed(t *testing.T) {
	t.Parallel()
	t.Run("in_its_watch", func(t *testing.T) {
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		w.offer(content, "1", map[string]string{"rules": "one"}, nil)
		w.until(content, Watch)
		w.disable(content, "1")
		if u := w.settle(content); u.State != RolledBack || w.inForce() != "7.1 with old" {
			t.Errorf("%+v, %s", u, w.inForce())
		}
	})
	t.Run("while_products_are_off", func(t *testing.T) {
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		w.offer(content, "1", map[string]string{"rules": "one"}, nil)
		w.settle(content)
		w.host.off = true
		w.boot()
		w.disable(content, "1")
		if u := w.settle(content); u.State != RolledBack || w.inForce() != "7.1 with old" {
			t.Errorf("%+v, %s", u, w.inForce())
		}
	})
	t.Run("installed_by_hand_and_nothing_before", func(t *testing.T) {
		w := newWorld(t, code)
		w.preinstall("7.1", "old")
		w.disable(code, "7.1")
		for range 10 {
			w.step()
		}
		u := w.update(code)
		if u == nil || u.State != RolledBack || !w.host.stopped {
			t.Fatalf("%+v, stopped %v", u, w.host.stopped)
		}
		if r := w.status(code).Record; len(r.Failures) != 1 || r.Frozen != "" {
			t.Errorf("once is enough: %+v", r)
		}
	})
	t.Run("another_takes_its_place", func(t *testing.T) {
		w := newWorld(t, code)
		w.preinstall("7.1", "old")
		w.disable(code, "7.1")
		w.offer(code, "7.0", map[string]string{"version": "7.0", "content/rules": "older"}, nil)
		if u := w.settle(code); u.State != Committed || w.inForce() != "7.0 with older" || w.host.stopped {
			t.Errorf("%+v, %s", u, w.inForce())
		}
	})
	t.Run("of_another_release", func(t *testing.T) {
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		w.offer(content, "1", map[string]string{"rules": "one"}, nil)
		w.settle(content)
		w.disable(content, "2")
		if u := w.settle(content); u.State != Committed || w.inForce() != "7.1 with one" {
			t.Errorf("%+v, %s", u, w.inForce())
		}
	})
}
