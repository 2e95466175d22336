package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMachine: what is laid over the disk is there, units run, commands answer, a power cut takes what was not synced and nothing
// else, and a reboot takes nothing.
func TestMachine(t *testing.T) {
	inject := t.TempDir()
	if err := os.MkdirAll(filepath.Join(inject, "opt"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(inject, "opt/hello"), []byte("#!/bin/sh\necho \"hello $1\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	m := Start(t, Options{Inject: inject, Units: map[string]string{
		"greet.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c '/opt/hello unit >/run/greeting'\n"}})
	boot := func() string { return m.Must("cat /proc/sys/kernel/random/boot_id") }
	first := boot()
	if got := m.Must("cat /run/greeting; cat /sys/kernel/security/lsm"); !strings.HasPrefix(got, "hello unit\n") || !strings.Contains(got, "bpf") {
		t.Errorf("the unit left %q", got)
	}
	if out, code := m.Run("/opt/hello you; exit 3"); out != "hello you\n" || code != 3 {
		t.Errorf("Run = %q, %d", out, code)
	}
	if out, code := m.Run("echo both >&2; kill -9 $$"); out != "both\n" || code != -1 {
		t.Errorf("Run of what is killed = %q, %d", out, code)
	}
	m.Must("echo kept >/root/kept; sync; echo lost >/root/lost")
	m.PowerCut()
	m.Boot()
	if second := boot(); second == first {
		t.Error("it did not boot again")
	}
	if got := m.Must("cat /root/kept; test ! -s /root/lost && echo gone"); got != "kept\ngone\n" {
		t.Errorf("after the power cut: %q", got)
	}
	m.Must("echo written >/root/written")
	took := m.Reboot()
	t.Logf("the way down took %v", took)
	if got := m.Must("cat /root/kept /root/written"); got != "kept\nwritten\n" {
		t.Errorf("after the reboot: %q", got)
	}
}
