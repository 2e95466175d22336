package process_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"bailey/agent/health"
	"bailey/agent/sensor/process"
	"bailey/internal/roottest"
)

// Whatever is found in the directory of pins, the sensor works, says what it did, and leaves nothing.
func TestDamagedPinsAreReplaced(t *testing.T) {
	roottest.Require(t, needsPins)
	foreign := func(t *testing.T, path string) {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close() //nolint:errcheck // the test's
		if err := m.Pin(path); err != nil {
			t.Fatal(err)
		}
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, pins, generation string)
		says   string
		lost   bool // the backlog cannot be had
	}{
		"link_gone":    {func(t *testing.T, _, g string) { must(t, os.Remove(g+"/exec_link")) }, "replaces process-", false},
		"program_gone": {func(t *testing.T, _, g string) { must(t, os.Remove(g+"/fork")) }, "replaces process-", false},
		"cells_gone":   {func(t *testing.T, _, g string) { must(t, os.Remove(g+"/cells")) }, "replaces process-", false},
		"links_swapped": {func(t *testing.T, _, g string) {
			must(t, os.Rename(g+"/exec_link", g+"/x"))
			must(t, os.Rename(g+"/fork_link", g+"/exec_link"))
			must(t, os.Rename(g+"/x", g+"/fork_link"))
		}, "the kernel attached program", false},
		"ring_gone":      {func(t *testing.T, _, g string) { must(t, os.Remove(g+"/ring")) }, "removed process-", true},
		"foreign_ring":   {func(t *testing.T, _, g string) { must(t, os.Remove(g+"/ring")); foreign(t, g+"/ring") }, "removed process-", true},
		"foreign_ledger": {func(t *testing.T, _, g string) { must(t, os.Remove(g+"/ledger")); foreign(t, g+"/ledger") }, "removed process-", true},
		"program_as_ring": {func(t *testing.T, _, g string) {
			must(t, os.Remove(g+"/ring"))
			must(t, os.Rename(g+"/task", g+"/ring"))
		}, "removed process-", true},
		"other_boot": {func(t *testing.T, _, g string) {
			m, err := ebpf.LoadPinnedMap(g+"/ledger", nil)
			must(t, err)
			defer m.Close() //nolint:errcheck // the test's
			page := make([]byte, m.ValueSize())
			must(t, m.Lookup(uint32(0), page))
			page[24]++ // of the boot's name
			must(t, m.Update(uint32(0), page, ebpf.UpdateAny))
		}, "removed process-", true},
		"half_pinned":          {func(t *testing.T, pins, g string) { must(t, os.Rename(g, pins+"/new-7")) }, "removed new-7", true},
		"half_removed":         {func(t *testing.T, pins, g string) { must(t, os.Rename(g, pins+"/old-7")) }, "", true},
		"others_may_write":     {func(t *testing.T, _, g string) { must(t, os.Chmod(g, 0o777)) }, "removed process-", true},
		"others_may_write_all": {func(t *testing.T, pins, _ string) { must(t, os.Chmod(pins, 0o777)) }, "others may change", true},
		"of_another_user":      {func(t *testing.T, pins, _ string) { must(t, os.Chown(pins, 1234, 1234)) }, "others may change", true},
		"junk": {func(t *testing.T, pins, _ string) {
			must(t, os.Mkdir(pins+"/junk", 0o700))
			foreign(t, pins+"/process-junk")
			foreign(t, pins+"/junk/x")
		}, "removed junk", false},
		"a_pin_in_its_place": {func(t *testing.T, pins, _ string) { must(t, os.RemoveAll(pins)); foreign(t, pins) }, "others may change", true},
	} {
		if testing.Short() && !slices.Contains([]string{"link_gone", "ring_gone", "links_swapped", "half_pinned"}, name) {
			continue // one of each sort
		}
		t.Run(name, func(t *testing.T) {
			pins := scratchBPFFS(t)
			cfg := process.Config{Pins: pins, RingBytes: 1 << 20}
			left(t, cfg, nil)
			pid := run(t, exec.Command("/bin/true"))
			c.damage(t, pins, generations(t, pins)[0])
			w := attach(t, cfg)
			w.run(t)
			w.SetWanted(true)
			w.exit(t, run(t, exec.Command("/bin/true")))
			if got := len(kinds(w, pid)) == 3; got == c.lost {
				t.Errorf("what waited was emitted: %v (%v)", got, kinds(w, pid))
			}
			said := ""
			for _, e := range w.health.List() {
				if e.Component == process.PinsComponent {
					said = e.Summary
				}
			}
			if !strings.Contains(said, "are pinned in "+pins) || !strings.Contains(said, c.says) {
				t.Errorf("health says %q, want %q", said, c.says)
			}
			once(t, w.all())
		})
	}
}

// Without a bpffs the sensor works as without pins, and says so.
func TestWithoutABPFFS(t *testing.T) {
	roottest.Require(t, needs)
	for name, pins := range map[string]string{"elsewhere": t.TempDir(), "nowhere": "/nonexistent/bailey", "sysfs": "/sys/fs/bailey"} {
		t.Run(name, func(t *testing.T) {
			w := start(t, process.Config{Pins: pins + "/process"})
			w.exit(t, run(t, exec.Command("/bin/true")))
			entries := w.health.List()
			if len(entries) != 2 || entries[1].Component != process.PinsComponent || entries[1].Status != health.Degraded || entries[1].Remedy == "" {
				t.Errorf("health: %+v", entries)
			}
			if w.Restored() != (process.Restored{}) {
				t.Errorf("restored %+v", w.Restored())
			}
		})
	}
}

func TestFindBPFFSMountsOne(t *testing.T) {
	roottest.Require(t, "mounts a bpffs")
	run := t.TempDir()
	for range 2 { // the second finds what an agent that was killed has left
		b, err := process.FindBPFFSAt("/nonexistent", run)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(filepath.Dir(b.Pins), &st); err != nil || st.Type != unix.BPF_FS_MAGIC {
			t.Errorf("%s: %v, file system %x", b.Pins, err, st.Type)
		}
		left(t, process.Config{Pins: b.Pins}, nil)
	}
	b, err := process.FindBPFFSAt("/nonexistent", run)
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{health: health.NewRegistry(), wake: make(chan struct{}, 1)}
	w.open(t, process.Config{Pins: b.Pins})
	if !w.Restored().Adopted {
		t.Errorf("restored %+v", w.Restored())
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(b.Pins)); !os.IsNotExist(err) {
		t.Errorf("the mount point is left: %v", err)
	}
	system := filepath.Dir(scratchBPFFS(t))
	in, err := process.FindBPFFSAt(system, run)
	if err != nil || filepath.Dir(in.Pins) != system || !strings.HasPrefix(filepath.Base(in.Pins), "bailey-") || in.Close() != nil {
		t.Errorf("where there is a bpffs: %+v, %v", in, err)
	}
}

// Somebody removes the pins while the sensor runs: it goes on, and its end is clean.
func TestPinsRemovedMeanwhile(t *testing.T) {
	roottest.Require(t, needsPins)
	cfg := process.Config{Pins: scratchBPFFS(t)}
	w := attach(t, cfg)
	w.run(t)
	w.SetWanted(true)
	if err := os.RemoveAll(cfg.Pins); err != nil {
		t.Fatal(err)
	}
	w.exit(t, run(t, exec.Command("/bin/true")))
	agree(t, w)
}
