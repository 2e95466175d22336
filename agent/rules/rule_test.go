package rules

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var comparePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func TestCheck(t *testing.T) {
	t.Parallel()
	good := func() Rule { return rule("id", Exec, Match{File: "/opt/x"}) }
	for name, change := range map[string]func(*Rule){
		"no_id":          func(r *Rule) { r.ID = "" },
		"long_id":        func(r *Rule) { r.ID = strings.Repeat("x", 65) },
		"id_with_spaces": func(r *Rule) { r.ID = "a b" },
		"no_action":      func(r *Rule) { r.Action = 0 },
		"unknown_action": func(r *Rule) { r.Action = 99 },
		"no_lease":       func(r *Rule) { r.Lease = 0 },
		"negative_lease": func(r *Rule) { r.Lease = -time.Hour },
		"long_lease":     func(r *Rule) { r.Lease = 25 * time.Hour },
		"nothing":        func(r *Rule) { r.Match = Match{} },
		"relative":       func(r *Rule) { r.Match.File = "opt/x" },
		"unclean":        func(r *Rule) { r.Match.File = "/opt/../x" },
		"zero_byte":      func(r *Rule) { r.Match.File = "/opt/\x00" },
		"long_path":      func(r *Rule) { r.Match.File = "/" + strings.Repeat("x", maxPath) },
		"root":           func(r *Rule) { r.Match = Match{Below: "/"} },
		"root_cgroup":    func(r *Rule) { r.Match = Match{Cgroup: "/"} },
		"both":           func(r *Rule) { r.Match.Below = "/opt" },
		"two_cgroups":    func(r *Rule) { r.Match.Cgroup, r.Match.CgroupID = "/a", 7 },
		"inode_alone":    func(r *Rule) { r.Match = Match{Below: "/opt", Ino: 7} },
		"destination":    func(r *Rule) { r.Match.Destination = netip.MustParsePrefix("10.0.0.0/8") },
		"port":           func(r *Rule) { r.Match.PortLow, r.Match.PortHigh = 1, 2 },
		"connect_file":   func(r *Rule) { r.Action = Connect },
		"connect_all":    func(r *Rule) { r.Action, r.Match = Connect, Match{} },
		"connect_world":  func(r *Rule) { r.Action, r.Match = Connect, Match{Destination: netip.MustParsePrefix("0.0.0.0/0")} },
		"connect_bits":   func(r *Rule) { r.Action, r.Match = Connect, Match{Destination: netip.MustParsePrefix("10.0.0.1/8")} },
		"connect_ports": func(r *Rule) {
			r.Action, r.Match = Connect, Match{Destination: netip.MustParsePrefix("10.0.0.0/8"), PortLow: 9, PortHigh: 8}
		},
		"memfd_file": func(r *Rule) { r.Action = MemfdExec },
	} {
		r := good()
		change(&r)
		if err := r.Check(24 * time.Hour); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	for name, r := range map[string]Rule{
		"file":          good(),
		"modules":       rule("a", ModuleLoad, Match{}),
		"memfd":         rule("a", MemfdExec, Match{}),
		"world_ports":   rule("a", Connect, Match{Destination: netip.MustParsePrefix("::/0"), PortLow: 25, PortHigh: 25}),
		"world_by":      rule("a", Connect, Match{Executable: "/opt/x"}),
		"cgroup_number": rule("a", Exec, Match{CgroupID: 7}),
	} {
		if err := r.Check(24 * time.Hour); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestActionWords(t *testing.T) {
	t.Parallel()
	for _, a := range Actions() {
		if got, err := ParseAction(a.String()); err != nil || got != a {
			t.Errorf("%v became %v: %v", a, got, err)
		}
		if len(hooks[a]) == 0 {
			t.Errorf("%v has no hook", a)
		}
	}
	if _, err := ParseAction(""); err == nil {
		t.Error("nothing is an action")
	}
}

func TestNotes(t *testing.T) {
	t.Parallel()
	e := &entry{
		rule:   rule("id", Connect, Match{Destination: netip.MustParsePrefix("10.0.0.0/8"), PortLow: 1, PortHigh: 2, Executable: "/opt/x", Cgroup: "/g"}),
		number: 3, serial: 4, since: 5, until: 6, earlier: 7, slot: 9,
		target: target{file: learnedFile{1, 2, 3}, executable: learnedFile{4, 5, 6}, cgroup: 8, level: 2},
	}
	b, err := e.note()
	if err != nil {
		t.Fatal(err)
	}
	n, err := readNote(b)
	if err != nil {
		t.Fatal(err)
	}
	opts := []cmp.Option{cmp.AllowUnexported(entry{}, target{}, learnedFile{}), comparePrefix, cmpopts.IgnoreFields(target{}, "named")}
	if diff := cmp.Diff(e, n.entry(9), opts...); diff != "" {
		t.Error(diff)
	}
	e.rule.Match = Match{File: "/" + strings.Repeat("\x01", maxPath-1), Executable: "/" + strings.Repeat("\x01", maxPath-1)}
	if _, err := e.note(); !errors.Is(err, ErrInvalid) {
		t.Errorf("a note that does not fit: %v", err)
	}
}

// FuzzNote reads what a map may hold that somebody else wrote to.
func FuzzNote(f *testing.F) {
	b, err := (&entry{rule: rule("id", Exec, Match{File: "/opt/x"})}).note()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{255, 255, 255, 255, '{'})
	f.Fuzz(func(_ *testing.T, b []byte) {
		if n, err := readNote(b); err == nil {
			_, _ = json.Marshal(n)
			_ = n.entry(1).key()
		}
	})
}

func TestCompile(t *testing.T) {
	t.Parallel()
	entries := map[uint32]*entry{
		1: {slot: 1, serial: 2, rule: rule("a", Exec, Match{Below: "/opt"}), target: target{file: learnedFile{7, 8, 9}}},
		2: {slot: 2, serial: 1, rule: rule("b", OpenWrite, Match{File: "/opt"}), target: target{file: learnedFile{7, 8, 9}}},
		3: {slot: 3, serial: 3, rule: rule("c", Connect, Match{Destination: netip.MustParsePrefix("10.0.0.0/8")})},
		4: {slot: 4, serial: 4, rule: rule("d", Connect, Match{Destination: netip.MustParsePrefix("fe80::/10")})},
	}
	im := compile(entries)
	cell := im.cells[learnedFile{7, 8, 9}.key(byPlace)]
	if got := cell.Slots[:3]; !cmp.Equal(got, []uint32{2, 1, 0}) {
		t.Errorf("cell %v", got)
	}
	if !cmp.Equal(im.prefixes, []uint32{105, 11}) {
		t.Errorf("lengths %v", im.prefixes)
	}
	if im.by[Exec] != 1<<byPlace || im.by[Connect] != 1<<byDestination || im.by[Ptrace] != 0 {
		t.Errorf("by %v", im.by)
	}
	if !im.programs["send"] || im.programs["ptrace"] || !im.devices[8] {
		t.Errorf("programs %v, devices %v", im.programs, im.devices)
	}
}
