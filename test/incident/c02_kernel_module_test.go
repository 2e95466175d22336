package incident

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Falco's kernel module.
//
// Date: 2023-09.
// Source: github.com/falcosecurity/libs/issues/1359.
// Shipped: a kernel module whose copy into a ring buffer made CentOS 7 panic.
// Must: G1 G4. A product brings no code into the kernel: neither the module in its folder nor a BPF program is loaded, and asking
// for it costs the machine nothing.
func TestC02KernelModule(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.replay(story{ID: "C2-05", Name: "Falco kernel module, 2023", Must: "G1 G4",
		Did: "brings a kernel module and asks for it to be loaded, and loads BPF programs"}, func(r *replay) {
		sp := r.spec(map[string]string{"fault": "seize", "at": "ready"})
		sp.Files = map[string]string{"sensor.ko": "\x7fELF a module"}
		r.watch(func() {
			r.plays(sp)
			time.Sleep(500 * time.Millisecond)
		})
		r.everyAttemptFailed("init_module", "finit_module", "delete_module", "bpf_map", "bpf_program", "perf", "kexec")
	})
}

// everyAttemptFailed checks what came of the product's attempts; those named must be among them.
func (r *replay) everyAttemptFailed(names ...string) {
	r.t.Helper()
	f := r.finding("seize", 10*time.Second, r.ofCulprit).GetFields()
	for _, name := range names {
		if f[name] == "" {
			r.errorf("the attempt %s was not made: %v", name, f)
		}
	}
	refusals := []string{"not permitted", "permission denied", "read-only", "no such", "refused", "unreachable", "not supported", "protocol"}
	for name, err := range f {
		if !slices.ContainsFunc(refusals, func(s string) bool { return strings.Contains(err, s) }) {
			r.errorf("the attempt %s: %s", name, err)
		}
	}
}
