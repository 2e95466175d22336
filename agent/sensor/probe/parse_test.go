package probe

import (
	"slices"
	"testing"
)

func TestListedFindsTheWholeName(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]bool{
		"lockdown,capability,landlock,yama,apparmor,bpf": true, "bpf\n": true, "bpf,ima\n": true,
		"lockdown,capability,yama,apparmor": false, "": false, "ebpf,bpfx": false,
	} {
		if got := listed(list) == nil; got != want {
			t.Errorf("listed(%q) = %v", list, got)
		}
	}
}

func TestParseMounts(t *testing.T) {
	t.Parallel()
	got := parseMounts("cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0\nproc /proc proc rw 0 0\nshort\n")
	if got.version2 != "/sys/fs/cgroup/unified" || len(got.version1) != 1 || !slices.Contains(got.version1["/sys/fs/cgroup/cpu"], "cpu") {
		t.Errorf("%+v", got)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add("cgroup2 /x cgroup2 rw 0 0\n")
	f.Add("a b cgroup\n")
	f.Fuzz(func(t *testing.T, text string) { parseMounts(text) })
}
