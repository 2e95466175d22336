package main

import (
	"os/exec"
	"testing"
	"time"

	"bailey/internal/roottest"
	"bailey/test/vm/bench/figure"
)

// TestSmoke boots the machine and measures little: that there are figures, that they are of the lanes, and that the programs of the guard
// are seen at work. It judges none of them.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		roottest.Unavailable(t, "qemu-system-x86_64 is not installed")
	}
	r, err := measure(t.Context(), options{lanes: "none,guard", batches: 1, limit: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range figure.Operations {
		ratio, ok := r.ratio("guard", "none", op)
		if ok != (op != figure.Build) || ok && (ratio < 0.5 || ratio > 5) {
			t.Errorf("%s with the guard takes ×%.3f, measured: %v", op, ratio, ok)
		}
	}
	if len(r.Lanes) != 2 || len(r.Lanes[0].Hooks) != 0 || len(r.Lanes[1].Hooks[figure.Create]) == 0 {
		t.Errorf("the lanes and their programs are %+v", r.Lanes)
	}
}
