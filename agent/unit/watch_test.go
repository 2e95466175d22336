package unit

import (
	"context"
	"encoding/binary"
	"os/exec"
	"testing"
	"time"

	"bailey/internal/leakcheck"
	"bailey/internal/roottest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestDecode(t *testing.T) {
	t.Parallel()
	b := make([]byte, argsAt+argsSize+4)
	binary.NativeEndian.PutUint64(b, 7)
	args := "systemctl\x00stop\x00bailey\x00"
	b[8], b[12], b[16] = 3, 4, byte(len(args))
	copy(b[20:], "systemctl")
	copy(b[argsAt:], args+"rubbish")
	a, ok := decode(b, "bailey.service")
	if want := (Asked{PID: 3, UID: 4, Start: 7, Comm: "systemctl", Command: "systemctl stop bailey", Verb: "stop"}); !ok || a != want {
		t.Errorf("got %+v, %v, want %+v", a, ok, want)
	}
	binary.NativeEndian.PutUint32(b[16:], 1<<20) // the arguments were cut
	if _, ok := decode(b, "bailey.service"); !ok {
		t.Error("what was cut is not looked at")
	}
	binary.NativeEndian.PutUint32(b[16:], 0) // they could not be read
	if _, ok := decode(b, "bailey.service"); ok {
		t.Error("what could not be read asks for something")
	}
	if _, ok := decode(b[:argsAt], "bailey.service"); ok {
		t.Error("a short record is none")
	}
}

// TestWatch: what systemctl is asked about the unit is seen, and what it is asked about others is not.
func TestWatch(t *testing.T) {
	roottest.Require(t, "loads a BPF program")
	const name = "there-is-no-such-unit.service"
	w, err := NewWatch(name)
	if err != nil {
		roottest.Unavailable(t, err.Error())
	}
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan Asked, 10)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, func(a Asked) { told <- a }) }()
	dir := t.TempDir()
	fake := dir + "/systemctl"
	if out, err := exec.Command("cp", "/bin/true", fake).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var pid int
	for _, args := range [][]string{{"stop", "another.service"}, {"status", name}, {"stop", name}} {
		c := exec.Command(fake, args...)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		pid = c.Process.Pid
	}
	select {
	case a := <-told:
		if int(a.PID) != pid || a.Command != fake+" stop "+name || a.Verb != "stop" || a.Comm != "systemctl" || a.Start == 0 {
			t.Errorf("got %+v of process %d", a, pid)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing is told")
	}
	cancel()
	if err := <-ended; err != nil || len(told) > 0 {
		t.Errorf("Run = %v, and %d more were told", err, len(told))
	}
}
