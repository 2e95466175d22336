package product_test

import (
	"errors"
	"strings"
	"testing"

	"bailey/agent/product"
)

// TestHold: no product is started, records can be changed, and what they say is done as soon as products are started.
func TestHold(t *testing.T) {
	y := newYard(t, nil)
	y.install("kept", "1", "sleep", "")
	y.m.Hold("a test")
	y.run()
	held := func(name, release string) {
		t.Helper()
		if v := y.show(name); v.Status.State != product.Stopped || v.Status.Reason != "off: a test" || !strings.HasPrefix(v.Release, release+"-") {
			t.Errorf("%s is %s, %+v", name, v.Release, v.Status)
		}
	}
	held("kept", "1")
	second := y.install("kept", "2", "sleep", "")
	held("kept", "2")
	y.install("new", "1", "sleep", "")
	held("new", "1")
	if _, err := y.m.Start(t.Context(), "kept"); !errors.Is(err, product.ErrHeld) || !strings.Contains(err.Error(), "a test") {
		t.Errorf("start: %v", err)
	}
	if _, err := y.m.Restart(t.Context(), "kept"); !errors.Is(err, product.ErrHeld) {
		t.Errorf("restart: %v", err)
	}
	if v, err := y.m.GoBack(t.Context(), "kept", second.Release); err != nil || !strings.HasPrefix(v.Release, "1-") {
		t.Errorf("back: %v, %s", err, v.Release)
	}
	if _, err := y.m.Stop(t.Context(), "new"); err != nil {
		t.Error(err)
	}
	y.m.Release()
	y.eventually("what is enabled runs", func() bool { return y.show("kept").Status.State == product.Running })
	if v := y.show("new"); v.Status.State != product.Stopped || v.Status.Reason != "" || y.m.Held() != "" {
		t.Errorf("what is not: %+v, held %q", v.Status, y.m.Held())
	}
	if _, err := y.m.Start(t.Context(), "new"); err != nil || y.show("new").Status.State != product.Running {
		t.Errorf("start: %v, %+v", err, y.show("new").Status)
	}
	y.stop()
}

// TestOffline reads and changes the records of an agent that does not run, and leaves what is unfinished alone.
func TestOffline(t *testing.T) {
	y := newYard(t, nil)
	y.install("edr", "1", "sleep", "")
	v := y.install("edr", "2", "sleep", "")
	m, err := product.Offline(y.cfg.State)
	if err != nil {
		t.Fatal(err)
	}
	if list := m.List(); len(list) != 1 || list[0].Release != v.Release || list[0].Previous == "" || !list[0].Enabled {
		t.Errorf("%+v", list)
	}
	if _, err := m.GoBack(t.Context(), "edr", v.Release); err != nil {
		t.Error(err)
	}
	if _, err := m.GoBack(t.Context(), "edr", m.List()[0].Release); !errors.Is(err, product.ErrFirst) {
		t.Errorf("once more: %v", err)
	}
	if _, err := m.Stop(t.Context(), "edr"); err != nil {
		t.Error(err)
	}
	y.open()
	if v := y.show("edr"); !strings.HasPrefix(v.Release, "1-") || v.Enabled {
		t.Errorf("%+v", v)
	}
	if m, err := product.Offline(t.TempDir()); err != nil || len(m.List()) != 0 {
		t.Errorf("of nothing: %v", err)
	}
}
