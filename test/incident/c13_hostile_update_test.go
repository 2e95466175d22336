package incident

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	controlv1 "bailey/api/control/v1"
)

// eScan's update server.
//
// Date: 2026-01-20.
// Source: cybernews.media/article/escan-antivirus-delivers-malware-in-supply-chain-attack.
// Shipped: hostile code by the real way of updates. It rewrote the hosts file and the update configuration, so that no cure could come,
// stayed, and fetched more.
// Must: G3 G4 G8 G12. A product whose every signature is right and which is hostile all the same can do what its containment lets it do,
// and nothing else: what it goes for is as it was, others run on, and it can be removed.
func TestC13HostileUpdate(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.replay(story{ID: "C13-01c", Name: "eScan update server, 2026", Must: "G3 G4 G8 G12",
		Did: "kills, traces, edits the hosts file and others' releases, loads BPF programs, connects outwards"}, func(r *replay) {
		v := newVictims(r)
		sp := r.spec(map[string]string{
			"fault": "seize", "at": "ready", "victims": v.pids, "targets": strings.Join(v.files, ","), "deny_path": r.State + "," + r.Exe,
		})
		r.watch(func() {
			r.plays(sp)
			r.everyAttemptFailed(v.expected()...)
			r.cureArrives()
		})
		v.unharmed()
	})
	s.replay(story{ID: "C13-x1", Name: "another trigger: a product that never says a word", Must: "G3 G4 G12",
		Did: "is the containment's own list of attempts, made by a program that does not speak the protocol"}, func(r *replay) {
		v := newVictims(r)
		rows := attemptPlan(v)
		r.watch(func() {
			r.attemptsProbe(rows)
			r.until("its attempts are over", 20*time.Second, func() error {
				_, err := os.Stat(filepath.Join(r.State, "products", r.name, "state", "results.json"))
				return err
			})
			r.until("it is off", rollBack, r.isOff)
		})
		text, err := os.ReadFile(filepath.Join(r.State, "products", r.name, "state", "results.json"))
		if err != nil {
			r.errorf("%v", err)
		}
		results := map[string]string{}
		if err := json.Unmarshal(text, &results); err != nil {
			r.errorf("%v", err)
		}
		for _, row := range rows {
			if got := results[row.Row]; got == "" || strings.HasPrefix(got, "ok:") {
				r.errorf("the attempt %s: %q", row.Row, got)
			}
		}
		v.unharmed()
	})
}

// attemptPlan is what the probe of agent/product/contain is told to try; none of it may work.
func attemptPlan(v *victims) []probeStep {
	sleeper := fmt.Sprint(v.sleeper.Process.Pid)
	var out []probeStep
	for _, args := range [][]string{
		{"read", "/etc/shadow"}, {"append", "/etc/hosts"}, {"create", "/product/new"}, {"append", "/product/probe"}, {"chmod", "/product/probe"},
		{"copy_and_execute", "/tmp"}, {"mknod", "/tmp"}, {"append", "/proc/sys/kernel/hostname"},
		{"connect", v.files[0]}, {"connect_tcp", "192.0.2.1:80"}, {"socket", "17", "3", "0"}, {"socket", "16", "3", "0"},
		{"ptrace_attach", sleeper}, {"vm_read", sleeper}, {"kill", sleeper}, {"ptrace_seize", "1"}, {"pidfd_getfd", "1"},
		{"mount"}, {"umount", "/proc/kcore"}, {"fsopen"}, {"chroot"}, {"unshare_user"}, {"clone_user"}, {"setns"},
		{"bpf"}, {"perf"}, {"io_uring"}, {"userfaultfd"}, {"keyctl"}, {"fanotify"}, {"settime"}, {"syslog"}, {"sethostname"},
		{"setuid"}, {"realtime"}, {"priority"}, {"oom_score"}, {"raise_limit"},
	} {
		out = append(out, probeStep{Row: strings.Join(args, " "), Args: args})
	}
	return out
}

// probeStep is one line of the probe's plan.
type probeStep struct {
	Row  string   `json:"row"`
	Args []string `json:"args"`
}

// attemptsProbe installs the probe as a product.
func (r *replay) attemptsProbe(plan []probeStep) {
	r.t.Helper()
	folder := filepath.Join(r.Dir, "products", r.name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.CopyFile(filepath.Join(r.Built, "probe"), filepath.Join(folder, "probe"), 0o755)
	text, err := json.Marshal(plan)
	if err != nil {
		r.t.Fatal(err)
	}
	manifest := fmt.Sprintf("name = %q\nversion = \"1.0.0\"\n[run]\ncommand = [\"./probe\", \"batch\"]\n", r.name)
	for name, text := range map[string]string{"plan.json": string(text), "manifest.toml": manifest} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
	r.attemptsFolder(folder)
}

// victims are what a hostile product goes for.
type victims struct {
	r       *replay
	sleeper *exec.Cmd
	pids    string
	files   []string
	text    map[string]string
}

func newVictims(r *replay) *victims {
	r.t.Helper()
	v := &victims{r: r, sleeper: exec.Command("sleep", "600"), text: map[string]string{}}
	v.sleeper.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := v.sleeper.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = v.sleeper.Process.Kill(); _ = v.sleeper.Wait() })
	v.pids = fmt.Sprintf("%d,%d,%d", r.Status().GetPid(), r.Product(witness).GetPid(), v.sleeper.Process.Pid)
	others := filepath.Join(r.State, "products", witness)
	key := filepath.Join(others, "state", "key")
	if err := os.WriteFile(key, []byte("the witness's"), 0o644); err != nil {
		r.t.Fatal(err)
	}
	v.files = []string{filepath.Join(r.Run, controlv1.SocketName), key, r.Config}
	for _, f := range v.files[1:] {
		text, err := os.ReadFile(f)
		if err != nil {
			r.t.Fatal(err)
		}
		v.text[f] = string(text)
	}
	return v
}

// expected are the attempts that must have been made.
func (v *victims) expected() []string {
	out := []string{"bpf_map", "bpf_program", "hosts", "own_release", "internet", "mount", "sysctl", "oom_score"}
	for _, p := range strings.Split(v.pids, ",") {
		out = append(out, "kill_"+p, "ptrace_"+p, "memory_"+p)
	}
	for i := range v.files {
		out = append(out, fmt.Sprintf("write_%d", i), fmt.Sprintf("unlink_%d", i), fmt.Sprintf("dial_%d", i))
	}
	return out
}

// unharmed checks that the victims are as they were.
func (v *victims) unharmed() {
	v.r.t.Helper()
	for f, want := range v.text {
		if got, err := os.ReadFile(f); err != nil || string(got) != want {
			v.r.errorf("%s was changed: %v", f, err)
		}
	}
	for _, p := range strings.Split(v.pids, ",") {
		if _, err := os.Stat("/proc/" + p); errors.Is(err, os.ErrNotExist) {
			v.r.errorf("process %s is gone", p)
		}
	}
}
