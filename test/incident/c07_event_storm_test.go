package incident

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	productv1 "bailey/api/product/v1"
	"bailey/test/rig"

	"golang.org/x/sys/unix"
)

// The audit backlog.
//
// Date: 2012 to 2026, again and again.
// Source: serverfault.com/questions/352281; the fleet check of RedHatInsights/incluster-checks.
// Shipped: nothing: the reader of audit records stalls, the backlog fills, and every system call that is audited waits. The machine
// looks dead.
// Must: G1 G2 G4. Nobody who does something waits for those who want to hear of it. What a reader is too slow for is dropped, counted
// and announced, to the last event.
func TestC07EventStorm(t *testing.T) {
	s := newScene(t)
	for _, c := range []struct {
		story
		settings map[string]string
		stop     bool
	}{
		{story{ID: "C7-05", Name: "the audit backlog, 2012–2026", Must: "G1 G2 G4", Loses: true,
			Did: "every product that wants events is stopped while files come and go as fast as they can"}, nil, true},
		{story{ID: "C7-x2", Name: "another trigger: a slow reader", Must: "G1 G2 G4", Long: true, Loses: true,
			Did: "handles each event in a fifth of a second, in a storm of them"}, map[string]string{"event_delay": "200ms"}, false},
	} {
		s.replay(c.story, func(r *replay) {
			settings := map[string]string{"ledger": "true"}
			for k, v := range c.settings {
				settings[k] = v
			}
			r.plays(rig.Spec{Name: r.name, Events: "create,close_write,unlink,rename", Settings: settings})
			pids := []int{int(r.Product(r.name).GetPid())}
			r.watch(func() {
				if c.stop {
					signal(t, pids, syscall.SIGSTOP)
				}
				start := time.Now()
				n := storm(t, filepath.Join(r.Scratch, "storm"), func() bool {
					return time.Since(start) > 1500*time.Millisecond && r.Product(r.name).GetCounters().GetLost() > 0
				})
				r.t.Logf("%s: %d file operations", r.row.ID, n)
			})
			if c.stop {
				signal(t, pids, syscall.SIGCONT)
				r.accountsFor()
			}
		})
	}
}

// accountsFor checks that a product that was stopped is told exactly what it lost.
func (r *replay) accountsFor() {
	r.t.Helper()
	path := r.Agent.File(fmt.Sprintf("ledger-%d", time.Now().UnixNano()), "", 0o644)
	f := r.finding("ledger", 20*time.Second, func(f *productv1.Finding) bool {
		return f.GetProduct() == r.name && f.GetFields()["asked_by"] == path
	}).GetFields()
	c := r.Product(r.name).GetCounters()
	seen, _ := strconv.ParseUint(f["seen"], 10, 64)
	lost, _ := strconv.ParseUint(f["announced"], 10, 64)
	r.t.Logf("%s: %d events seen, %d announced as lost", r.row.ID, seen, lost)
	if f["silent"] != "0" {
		r.errorf("%s events are missing that nobody announced", f["silent"])
	}
	if lost == 0 || lost != c.GetLost() {
		r.errorf("it was told of %d lost events, the agent counts %d", lost, c.GetLost())
	}
}

func signal(t *testing.T, pids []int, sig syscall.Signal) {
	t.Helper()
	for _, pid := range pids {
		if pid <= 0 {
			t.Fatalf("process %d is to be signalled: it is not running", pid) // 0 would be this test and all around it
		}
		if err := syscall.Kill(pid, sig); err != nil {
			t.Errorf("signal the product: %v", err)
		}
	}
}

// storm makes, renames and removes files on four goroutines until enough says so, and returns how many operations that were.
// Files are made without being opened, so that nobody is asked and the storm is as fast as the file system is.
func storm(t *testing.T, dir string, enough func() bool) int64 {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	var all sync.WaitGroup
	stop := make(chan struct{})
	for g := range 4 {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				path := filepath.Join(dir, fmt.Sprintf("%d-%d", g, i))
				err := errors.Join(unix.Mknod(path, unix.S_IFREG|0o600, 0), unix.Rename(path, path+"-new"), unix.Unlink(path+"-new"))
				if err != nil {
					t.Errorf("a file operation failed: %v", err)
					return
				}
				n.Add(3)
			}
		})
	}
	for end := time.Now().Add(stormLimit); !enough() && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
	}
	close(stop)
	all.Wait()
	return n.Load()
}

// stormLimit is when a storm ends that nobody had enough of.
const stormLimit = 20 * time.Second
