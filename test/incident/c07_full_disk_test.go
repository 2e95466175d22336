package incident

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Malwarebytes 1.0.3798 and the audit backlog, once more: the disk is what is full.
//
// Date: 2018-01-27; 2012 to 2026.
// Source: the vendor's own post; serverfault.com/questions/352281.
// Shipped: nothing: the place that state, logs and spools are written to has no room any more, and the writer waits or ends.
// Must: G1 G2 G4. Questions are answered and products run with the agent's state on a full disk; what cannot be stored is said.
func TestC07FullDisk(t *testing.T) {
	t.Parallel()
	s := newSceneWith(t, func(s *scene) string {
		if err := os.Mkdir(s.State, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("bailey-rig", s.State, "tmpfs", 0, "size=96m,mode=0755"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(s.State, 0); err != nil {
				t.Errorf("unmount the state: %v", err)
				_ = unix.Unmount(s.State, unix.MNT_DETACH)
			}
		})
		return ""
	})
	s.replay(story{ID: "C7-x3", Name: "another trigger: the agent's own disk is full", Must: "G1 G2 G4",
		Dies: true, Ends: 2, Did: "logs without an end while the file system of the agent's state has no room"}, func(r *replay) {
		sp := r.spec(map[string]string{"note": "", "seen": ""})
		r.plays(sp)
		full := filepath.Join(r.State, "filler")
		fill(t, full)
		r.watch(func() {
			r.attempts(r.spec(map[string]string{"fault": "log", "at": "ready"}))
			if _, err := r.Bailey("product", "set", r.name, "note=x"); err == nil {
				r.t.Logf("%s: a setting was stored on a full disk", r.row.ID)
			}
			time.Sleep(time.Second)
			r.Must("status")
			if out, err := r.Bailey("product", "restart", witness); err != nil && !strings.Contains(err.Error(), "no space left") {
				r.errorf("an operator is not told that the disk is full: %s", out)
			}
			pid := r.Product(witness).GetPid()
			signal(t, []int{int(pid)}, syscall.SIGKILL)
			r.until("the healthy product runs again", 10*time.Second, func() error {
				if p := r.Product(witness); p.GetState() != "running" || p.GetPid() == pid {
					return fmt.Errorf("it is %s: %s", p.GetState(), p.GetReason())
				}
				return nil
			})
		})
		if err := os.Remove(full); err != nil {
			r.errorf("%v", err)
		}
		r.Must("product", "set", r.name, "note=y")
	})
}

// fill writes a file until there is no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
