package guard

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"bailey/internal/bpflsm"
)

// untried are the hooks that nothing harmless calls.
var untried = []string{"bprm_committed_creds", "file_ioctl_compat", "file_send_sigiotask", "kernel_load_data", "kernel_read_file"}

// loadAlone loads the programs without pinning or locking them, and returns them with their names.
func loadAlone(t *testing.T) (*bpflsm.Blueprint, *bpflsm.Parts, []string) {
	t.Helper()
	b, err := newBlueprint()
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Load()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { allowed(t, "unload the programs", p.Close()) })
	return b, p, slices.Collect(maps.Keys(b.Spec.Programs))
}

func tryHooks(t *testing.T, b *bpflsm.Blueprint, p *bpflsm.Parts, names []string) bpflsm.Trial {
	t.Helper()
	dir := t.TempDir()
	trial, err := b.Try(p, names, dir)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	for _, hook := range trial.Untried {
		if !slices.Contains(untried, hook) {
			t.Errorf("%s was not tried", hook)
		}
	}
	return trial
}

// TestSilentHook: of all hooks exactly those that the kernel does not call are named.
func TestSilentHook(t *testing.T) {
	needsVM(t)
	b, p, names := loadAlone(t)
	const left = "inode_mkdir"
	for _, name := range names {
		if name != left {
			allowed(t, "attach "+name, p.Attach(name))
		}
	}
	if trial := tryHooks(t, b, p, names); !slices.Equal(trial.Silent, []string{left}) || len(trial.Called) < 25 {
		t.Errorf("one hook is not attached: %+v", trial)
	}
	allowed(t, "attach "+left, p.Attach(left))
	if trial := tryHooks(t, b, p, names); len(trial.Silent) > 0 {
		t.Errorf("all hooks are attached: %+v", trial)
	}
}

// TestNotCalled: where bpf is not among the security modules, each hook is attached and silent, and there is no guard.
func TestNotCalled(t *testing.T) {
	needsVM(t)
	if list, err := os.ReadFile("/sys/kernel/security/lsm"); err != nil || strings.Contains(string(list), "bpf") {
		t.Skip("needs a kernel without bpf in lsm=: it runs in the machine no-bpf-lsm of `make vm`")
	}
	b, p, names := loadAlone(t)
	allowed(t, "attach", p.AttachAll())
	if trial := tryHooks(t, b, p, names); len(trial.Called) > 0 || len(trial.Silent) < 25 {
		t.Errorf("no hook is called: %+v", trial)
	}
	pins := "/sys/fs/bpf/" + sceneName
	g, err := Start(Config{Pins: pins, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, bpflsm.ErrNotCalled) || !strings.Contains(err.Error(), "file_open") || !strings.Contains(Remedy(err), "lsm=") {
		t.Errorf("start: %v, %v; remedy: %s", g, err, Remedy(err))
	}
	if _, err := os.Stat(pins); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}
