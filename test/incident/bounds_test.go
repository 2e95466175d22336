package incident

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is the processor time that a product's control group has used.
func (s *scene) usage(name string) time.Duration {
	s.t.Helper()
	for _, g := range s.groups(name) {
		if text, err := os.ReadFile(filepath.Join(g, "cpuacct.usage")); err == nil {
			n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			return time.Duration(n)
		}
		if text, err := os.ReadFile(filepath.Join(g, "cpu.stat")); err == nil && strings.HasPrefix(string(text), "usage_usec ") {
			n, _ := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
			return time.Duration(n) * time.Microsecond
		}
	}
	s.t.Fatalf("no control group of %s accounts for processor time", name)
	return 0
}

// groups are the control groups that a product's processes are in.
func (s *scene) groups(name string) []string {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.Product(name).GetPid()))
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || !strings.HasSuffix(f[2], "/"+name) {
			continue
		}
		roots, _ := filepath.Glob("/sys/fs/cgroup/*" + f[2])
		out = append(append(out, roots...), "/sys/fs/cgroup"+f[2])
	}
	if len(out) == 0 {
		s.t.Fatalf("%s is in no control group of its own: %s", name, text)
	}
	return out
}

// outOfMemory checks that only the product was killed, and that it was its own limit that it met.
func outOfMemory(r *replay) {
	r.until("it was killed for its memory", 10*time.Second, func() error {
		if p := r.Product(r.name); p.GetRestarts() == 0 && p.GetState() == "running" {
			return fmt.Errorf("it is %s", p.GetState())
		}
		return nil
	})
	if err := r.Serves(); err != nil {
		r.errorf("the agent: %v", err)
	}
}

// wasStopped checks that the product met a limit, by its own account.
func (r *replay) wasStopped(rule, want string) {
	r.t.Helper()
	if f := r.finding(rule, 10*time.Second, r.ofCulprit).GetFields(); !strings.Contains(f["error"], want) {
		r.errorf("it met no limit: %v", f)
	}
}

// logIsBounded checks what is kept of a flood.
func logIsBounded(r *replay) {
	var size int64
	for _, name := range []string{"log", "log.1"} {
		if st, err := os.Stat(filepath.Join(r.State, "products", r.name, name)); err == nil {
			size += st.Size()
		}
	}
	if size == 0 || size > 1<<20+64<<10 {
		r.errorf("%d bytes of its log are kept, 1 MiB is its limit", size)
	}
	out := r.Must("product", "logs", r.name)
	if !strings.Contains(out, "lines dropped") {
		r.errorf("its log does not say that lines were dropped")
	}
}

// stateIsBounded checks that a product that fills its state directory cannot go on for ever.
func stateIsBounded(r *replay) {
	component := "product." + r.name + ".state"
	r.until("it is seen that its state is over the limit", 20*time.Second, func() error {
		if h := r.Health(component); h.GetStatus() != "degraded" {
			return errors.New(h.GetSummary())
		}
		return nil
	})
	r.until("it runs with a state that it cannot write", 20*time.Second, func() error {
		if p := r.Product(r.name); p.GetState() != "running" || !strings.Contains(p.GetReason(), "read-only") {
			return fmt.Errorf("%s: %s", p.GetState(), p.GetReason())
		}
		return nil
	})
}
