package guard

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// What Go and C both know must be the same: a hook's number is all that crosses between them.
func TestHooksAreTheObjects(t *testing.T) {
	t.Parallel()
	spec, err := loadGuard()
	if err != nil {
		t.Fatal(err)
	}
	if n := int(spec.Maps[mapTallies].MaxEntries); n != len(hooks) {
		t.Errorf("%d hooks here, %d in report.h", len(hooks), n)
	}
	if HookCgroupMove.String() != "cgroup_attach_task" || Hook(len(hooks)).String() == "" {
		t.Errorf("hook %d is %s", HookCgroupMove, HookCgroupMove)
	}
	for _, name := range slices.AppendSeq(slices.Clone(needed), maps.Keys(variants)) {
		if spec.Programs[name] == nil {
			t.Errorf("the object has no program %s", name)
		}
	}
}

func TestDecodeAttempt(t *testing.T) {
	t.Parallel()
	b := make([]byte, attemptSize)
	b[0], b[8], b[48], b[60], b[68], b[70] = 1, 2, 3, 4, byte(HookCgroupMove), 1
	copy(b[72:], "comm")
	copy(b[88:], strings.Repeat("n", 64)) // no room for a zero
	a, err := decodeAttempt(b)
	if err != nil {
		t.Fatal(err)
	}
	want := Attempt{Time: 1, Start: 2, PID: 3, Target: 4, Hook: HookCgroupMove, Refused: true, Comm: "comm", Name: strings.Repeat("n", 64)}
	if a != want {
		t.Errorf("got %+v, want %+v", a, want)
	}
	if _, err := decodeAttempt(b[1:]); err == nil {
		t.Error("a short record is no error")
	}
}

func TestSourceOf(t *testing.T) {
	t.Parallel()
	const info = `22 1 8:1 / / rw - ext4 /dev/sda1 rw
23 22 0:30 / /var/lib\040x rw - btrfs /dev/sdb rw
24 22 0:31 / /run rw - tmpfs tmpfs rw
rubbish
`
	for path, want := range map[string]string{
		"/": "/dev/sda1", "/var/lib": "/dev/sda1", "/var/lib x": "/dev/sdb", "/var/lib x/y": "/dev/sdb", "/run/bailey": "tmpfs", "/running": "/dev/sda1",
	} {
		if got := sourceOf(info, path); got != want {
			t.Errorf("%s lies on %q, want %q", path, got, want)
		}
	}
}

func TestSetUnit(t *testing.T) {
	t.Parallel()
	c := &control{guardSettings: new(guardSettings)}
	if err := c.setUnit("/system.slice/bailey.service"); err != nil {
		t.Fatal(err)
	}
	if c.UnitDepth != 2 || c.Unit[0][0] != 'b' || c.Unit[1][0] != 's' {
		t.Errorf("depth %d: %c, %c", c.UnitDepth, c.Unit[0][0], c.Unit[1][0])
	}
	for _, bad := range []string{strings.Repeat("/x", 9), "/" + strings.Repeat("x", 64)} {
		if err := c.setUnit(bad); err == nil {
			t.Errorf("%s is no error", bad)
		}
	}
	if err := c.setUnit(""); err != nil || c.UnitDepth != 0 {
		t.Errorf("no unit: %v, depth %d", err, c.UnitDepth)
	}
}
