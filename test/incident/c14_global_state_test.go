package incident

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// osquery turns audit off for everyone.
//
// Date: 2019-01-22.
// Source: github.com/osquery/osquery/issues/5381.
// Shipped: nothing: a watchdog killed a worker, whose clean-up "restored" the audit configuration of the whole machine. auditd's rules were
// gone, and 203,154 records with them.
// Must: G4. A product owns nothing of the kernel's. The agent takes away what it made and leaves alone what it did not, whether it ends
// as it should or is killed.
func TestC14GlobalState(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.replay(story{ID: "C14-02a", Name: "osquery and audit, 2019", Must: "G4", Did: "is killed, again and again"}, func(r *replay) {
		r.plays(r.spec(nil))
		before := takeGlobals(t)
		r.watch(func() {
			for range 3 {
				pid := r.Product(r.name).GetPid()
				signal(t, []int{int(pid)}, syscall.SIGKILL)
				r.until("it is back", 10*time.Second, func() error {
					if p := r.Product(r.name); p.GetState() != "running" || p.GetPid() == pid {
						return fmt.Errorf("it is %s", p.GetState())
					}
					return nil
				})
			}
		})
		before.compare(r)
	})
	s.replay(story{ID: "C14-x1", Name: "another trigger: the operator ends the agent and starts it again", Must: "G4",
		Did: "is healthy, and ends and starts with the agent"}, func(r *replay) {
		before := takeGlobals(t)
		r.plays(r.spec(nil))
		r.watchFor(300 * time.Millisecond)
		held := bpfObjects(t, int(r.Status().GetPid()))
		if len(held) == 0 {
			r.errorf("the agent has no BPF objects: nothing is proven")
		}
		r.Stop()
		r.until("what it had in the kernel is gone", 10*time.Second, func() error { return stillThere(held) })
		before.compare(r)
		r.again()
		r.watchFor(300 * time.Millisecond)
	})
}

// globals are settings of the whole machine: every sysctl, by path.
type globals map[string]string

// takeGlobals reads every sysctl that stands still by itself.
func takeGlobals(t *testing.T) globals {
	t.Helper()
	first := readSysctls(t)
	time.Sleep(100 * time.Millisecond)
	for name, value := range readSysctls(t) {
		if first[name] != value {
			delete(first, name)
		}
	}
	if len(first) < 100 {
		t.Fatalf("only %d sysctls can be read", len(first))
	}
	return first
}

// moving are sysctls that count something.
var moving = []string{"random/", "-nr", "-state", "ns_last_pid", "pty/nr", "quota/", "sched_domain", "perf_event", "/binfmt_misc/"}

func readSysctls(t *testing.T) globals {
	t.Helper()
	out := globals{}
	for _, tree := range []string{"/proc/sys/kernel", "/proc/sys/fs", "/proc/sys/vm", "/proc/sys/net/core", "/proc/sys/net/ipv4", "/proc/sys/user"} {
		_ = filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // some cannot be read by anybody
			}
			for _, m := range moving {
				if strings.Contains(path, m) {
					return nil
				}
			}
			if text, err := os.ReadFile(path); err == nil {
				out[path] = string(text)
			}
			return nil
		})
	}
	return out
}

func (g globals) compare(r *replay) {
	r.t.Helper()
	now := readSysctls(r.t)
	for name, value := range g {
		if now[name] != value {
			r.errorf("%s was changed from %q to %q", name, value, now[name])
		}
	}
}

// bpfObject is a program or a map of the kernel's, by its number.
type bpfObject struct {
	program bool
	id      uint32
}

// bpfObjects lists what a process holds.
func bpfObjects(t *testing.T, pid int) []bpfObject {
	t.Helper()
	var out []bpfObject
	infos, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	for _, name := range infos {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			var id uint32
			if n, _ := fmt.Sscanf(line, "map_id: %d", &id); n == 1 {
				out = append(out, bpfObject{id: id})
			}
			if n, _ := fmt.Sscanf(line, "prog_id: %d", &id); n == 1 {
				out = append(out, bpfObject{program: true, id: id})
			}
		}
	}
	return out
}

// stillThere is nil when none of the objects is in the kernel any more.
func stillThere(list []bpfObject) error {
	for _, o := range list {
		if o.program {
			if p, err := ebpf.NewProgramFromID(ebpf.ProgramID(o.id)); err == nil {
				return errors.Join(fmt.Errorf("BPF program %d is still there", o.id), p.Close())
			}
			continue
		}
		if m, err := ebpf.NewMapFromID(ebpf.MapID(o.id)); err == nil {
			return errors.Join(fmt.Errorf("BPF map %d is still there", o.id), m.Close())
		}
	}
	return nil
}
