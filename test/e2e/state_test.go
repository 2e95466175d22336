package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/test/rig"

	"golang.org/x/sys/unix"
)

// faultyState is what can be wrong with the file system that holds the agent's state.
var faultyState = []struct {
	name   string
	break_ func(a *rig.Agent)
	says   string // what some health entry or product's reason says
}{
	{"full", fillDisk, "space"},
	{"no_inodes", fillInodes, "space"},
	{"read_only", readOnly, "read-only"},
	{"record_damaged", damageRecord, "record"},
}

// TestStateFaults: whatever becomes of the disk below the agent, it goes on protecting, starts again, protects again, and says what
// is wrong.
func TestStateFaults(t *testing.T) {
	for _, fault := range faultyState {
		t.Run(fault.name, func(t *testing.T) {
			a := rig.New(t, built, "")
			if err := os.MkdirAll(a.State, 0o711); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("bailey-state", a.State, "tmpfs", 0, "size=64m,nr_inodes=512,mode=0711"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(a.State, 0); err != nil {
					t.Errorf("unmount the state: %v", err)
					_ = unix.Unmount(a.State, unix.MNT_DETACH)
				}
			})
			a.Start()
			t.Cleanup(a.Stop)
			bad := a.Program("bad")
			a.Install(rig.Spec{Name: "judge", Questions: "exec", Settings: map[string]string{"deny_path": bad}})
			a.Install(rig.Spec{Name: "other", Questions: "exec"})
			fault.break_(a)

			protects := func() error {
				if err := execs(a.Program("good")); err != nil {
					return fmt.Errorf("a good program: %w", err)
				}
				return refusal(execs(bad))
			}
			if err := protects(); err != nil {
				t.Errorf("while it runs: %v", err)
			}
			a.Stop()
			a.Start()
			a.Eventually("it protects again", 20*time.Second, protects)
			a.Eventually("it says what is wrong", 20*time.Second, func() error {
				st := a.Status()
				var said []string
				for _, e := range st.GetHealth() {
					if e.GetStatus() != "ok" {
						said = append(said, e.GetComponent()+": "+e.GetSummary())
					}
				}
				for _, p := range st.GetProducts() {
					said = append(said, p.GetName()+": "+p.GetReason())
				}
				if text := strings.Join(said, "; "); !strings.Contains(text, fault.says) {
					return fmt.Errorf("nothing says %q: %s", fault.says, text)
				}
				return nil
			})
		})
	}
}

func fillDisk(a *rig.Agent) {
	t, state := a.T, a.State
	f, err := os.Create(filepath.Join(state, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 1 << 12, 1} {
		for {
			if _, err := f.Write(make([]byte, size)); err != nil {
				if !errors.Is(err, unix.ENOSPC) {
					t.Fatal(err)
				}
				break
			}
		}
	}
}

func fillInodes(a *rig.Agent) {
	t, state := a.T, a.State
	dir := filepath.Join(state, "filler")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 100_000 {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	t.Fatal("the inodes do not run out")
}

// readOnly stops the agent meanwhile: the kernel refuses it while a file is open for writing.
func readOnly(a *rig.Agent) {
	a.Stop()
	if err := unix.Mount("", a.State, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		a.T.Fatal(err)
	}
	a.Start()
	a.Running("judge")
}

func damageRecord(a *rig.Agent) {
	t, state := a.T, a.State
	path := filepath.Join(state, "products", "other", "record.json")
	if err := os.WriteFile(path, []byte("{\"name\": \"oth"), 0o600); err != nil {
		t.Fatal(err)
	}
}
