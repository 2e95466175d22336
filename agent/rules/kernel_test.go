package rules

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/internal/boottime"
	"bailey/internal/bpflsm"
	"bailey/internal/cgroup2"
)

const testPins = "/sys/fs/bpf/bailey-rules-test"

func testConfig() Config {
	return Config{
		Pins:          testPins,
		Critical:      func(f *event.File) bool { return strings.Contains(f.Path, "/critical") },
		CriticalBelow: func(dir string) (string, bool) { return dir + "/critical", strings.HasSuffix(dir, "/vital") },
		Untouchable:   []string{"/own"},
	}
}

func everything() map[string]Grant {
	return map[string]Grant{"acme": {Actions: Actions(), Enforce: true}, "other": {Actions: Actions(), Enforce: true}}
}

func newRules(t *testing.T, change ...func(*Config)) *Rules {
	t.Helper()
	needsVM(t)
	cfg := testConfig()
	for _, f := range change {
		f(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(testPins + "*"); len(left) > 0 {
			t.Errorf("left in the kernel: %v", left)
		}
	})
	r.TakeOver()
	r.SetGrants(everything())
	return r
}

func rule(id string, a Action, m Match) Rule {
	return Rule{Product: "acme", ID: id, Action: a, Match: m, Lease: time.Hour}
}

func install(t *testing.T, r *Rules, rule Rule) {
	t.Helper()
	if _, err := r.Install(rule); err != nil {
		t.Fatal(err)
	}
}

// yard is a directory with things to do something to.
type yard struct{ dir, tool, file, deep string }

func newYard(t *testing.T) *yard {
	t.Helper()
	dir := t.TempDir()
	y := &yard{dir: dir, tool: dir + "/tool", file: dir + "/file", deep: dir + "/1/2/3/deep"}
	if err := os.MkdirAll(filepath.Dir(y.deep), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{y.tool: text, y.file: []byte("x"), y.deep: []byte("x")} {
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return y
}

// run executes a copy of this program, with no test to run.
func run(path string) error { return exec.Command(path, "-test.run=^$").Run() }

func write(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func memfd() error {
	fd, err := unix.MemfdCreate("tool", 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "tool")
	text, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		_, err = f.Write(text)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	reader, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err = errors.Join(err, f.Close()); err != nil { // nobody executes what somebody can write
		return err
	}
	defer reader.Close()
	return run(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), reader.Fd()))
}

func connect(network, address string) func() error {
	return func() error {
		c, err := net.DialTimeout(network, address, time.Second)
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil // nobody is there, which was found out by asking
		}
		if err == nil {
			err = c.Close()
		}
		return err
	}
}

// datagram sends without connecting.
func datagram() error {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, err = c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9), Port: 9})
	return errors.Join(err, c.Close())
}

// tracer has a child traced.
func tracer(y *yard) func() error {
	return func() error {
		cmd := exec.Command(y.tool, "-test.run=^$")
		cmd.Env = append(os.Environ(), helperVariable+"=sleep")
		cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		runtime.LockOSThread() // Pdeathsig is the thread's
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			return err
		}
		proc := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
		for range 1000 { // on a busy machine it was seen before it executes the tool
			if exe, _ := os.Readlink(proc + "exe"); exe == y.tool {
				break
			}
			time.Sleep(10 * time.Millisecond) //nolint:forbidigo // it has yet to execute
		}
		_, err := os.ReadFile(proc + "mem")
		_ = cmd.Process.Kill()
		ended := cmd.Wait()
		switch {
		case err == nil:
			return errors.Join(errors.New("the child had no memory to read any more"), ended)
		case errors.Is(err, unix.EIO):
			return nil // it was opened, and there is nothing at address 0
		}
		return err
	}
}

func mapExec(path string) func() error {
	return func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		b, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		return errors.Join(unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC), unix.Munmap(b))
	}
}

// TestActions does everything before there is a rule, with the rule, and when it is gone.
func TestActions(t *testing.T) {
	r := newRules(t)
	y := newYard(t)
	away := func() error { return errors.Join(os.Rename(y.deep, y.dir+"/moved"), os.Rename(y.dir+"/moved", y.deep)) }
	into := func() error {
		return errors.Join(os.Rename(y.file, y.dir+"/1/2/in"), os.Rename(y.dir+"/1/2/in", y.file))
	}
	unlink := func() error { return errors.Join(os.Remove(y.deep), os.WriteFile(y.deep, []byte("x"), 0o644)) }
	linked := func() error { return errors.Join(os.Link(y.deep, y.dir+"/link"), os.Remove(y.dir+"/link")) }
	created := func() error {
		return errors.Join(os.WriteFile(y.dir+"/1/new", nil, 0o644), os.Remove(y.dir+"/1/new"))
	}
	local, six := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")
	cases := []struct {
		name   string
		action Action
		match  Match
		deed   func() error
	}{
		{"exec_file", Exec, Match{File: y.tool}, func() error { return run(y.tool) }},
		{"exec_below", Exec, Match{Below: y.dir}, func() error { return run(y.tool) }},
		{"exec_file_by_executable", Exec, Match{File: y.tool, Executable: self(t)}, func() error { return run(y.tool) }},
		{"write_file", OpenWrite, Match{File: y.file}, func() error { return write(y.file) }},
		{"write_below", OpenWrite, Match{Below: y.dir}, func() error { return write(y.deep) }},
		{"truncate", OpenWrite, Match{File: y.file}, func() error { return os.Truncate(y.file, 0) }},
		{"create_below", OpenWrite, Match{Below: y.dir + "/1"}, created},
		{"link_from_below", OpenWrite, Match{Below: y.dir + "/1"}, linked},
		{"unlink_file", UnlinkRename, Match{File: y.deep}, unlink},
		{"unlink_below", UnlinkRename, Match{Below: y.dir + "/1"}, unlink},
		{"rename_file", UnlinkRename, Match{File: y.deep}, away},
		{"rename_from_below", UnlinkRename, Match{Below: y.dir + "/1"}, away},
		{"rename_into_below", UnlinkRename, Match{Below: y.dir + "/1"}, into},
		{"rmdir_below", UnlinkRename, Match{Below: y.dir}, func() error {
			return errors.Join(os.Mkdir(y.dir+"/gone", 0o755), unix.Rmdir(y.dir+"/gone"))
		}},
		{"memfd_all", MemfdExec, Match{}, memfd},
		{"memfd_by_executable", MemfdExec, Match{Executable: self(t)}, memfd},
		{"connect4", Connect, Match{Destination: local}, connect("tcp4", "127.0.0.1:9")},
		{"connect4_port", Connect, Match{Destination: local, PortLow: 9, PortHigh: 9}, connect("tcp4", "127.0.0.1:9")},
		{"connect6", Connect, Match{Destination: six}, connect("tcp6", "[::1]:9")},
		{"connect_by_executable", Connect, Match{Executable: self(t)}, connect("tcp4", "127.0.0.1:9")},
		{"datagram", Connect, Match{Destination: local}, datagram},
		{"ptrace_below", Ptrace, Match{Below: y.dir}, tracer(y)},
		{"ptrace_all", Ptrace, Match{}, tracer(y)},
		{"mprotect_file", MprotectExec, Match{File: y.tool}, mapExec(y.tool)},
		{"mprotect_below", MprotectExec, Match{Below: y.dir}, mapExec(y.tool)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			allowed(t, "without a rule", c.deed())
			install(t, r, rule("r", c.action, c.match))
			refused(t, "with a rule", c.deed())
			if got := r.List(); len(got) != 1 || got[0].Hits == 0 {
				t.Errorf("rules %+v, want one that was hit", got)
			}
			if err := r.Remove("acme", "r", "test"); err != nil {
				t.Fatal(err)
			}
			_ = os.Remove(y.dir + "/gone")
			allowed(t, "when the rule is gone", c.deed())
			if links, _ := filepath.Glob(testPins + "/*/" + bpflsm.LinkPin("*")); len(links) > 0 {
				t.Errorf("still attached, without a rule: %v", links)
			}
		})
	}
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOnlyWhatIsMeant: a rule does not hold for what is beside what it names.
func TestOnlyWhatIsMeant(t *testing.T) {
	r := newRules(t)
	y := newYard(t)
	install(t, r, rule("file", OpenWrite, Match{File: y.file}))
	install(t, r, rule("below", OpenWrite, Match{Below: y.dir + "/1/2"}))
	install(t, r, rule("by", OpenWrite, Match{Below: y.dir, Executable: y.tool}))
	install(t, r, rule("net", Connect, Match{Destination: netip.MustParsePrefix("127.0.1.0/24"), PortLow: 80, PortHigh: 90}))
	allowed(t, "beside the file", write(y.tool))
	allowed(t, "above the directory", os.WriteFile(y.dir+"/1/x", nil, 0o644))
	allowed(t, "read", func() error { _, err := os.ReadFile(y.deep); return err }())
	allowed(t, "unlink", os.Remove(y.file))
	allowed(t, "another file in its place", os.WriteFile(y.file, []byte("x"), 0o644))
	refused(t, "below", write(y.deep))
	allowed(t, "another block", connect("tcp4", "127.0.2.1:80")())
	allowed(t, "another port", connect("tcp4", "127.0.1.1:91")())
	refused(t, "the block and port", connect("tcp4", "127.0.1.1:90")())
}

// TestCgroup: a rule for a control group holds for the processes in it and below, and for no others.
func TestCgroup(t *testing.T) {
	r := newRules(t)
	const group = cgroup2.Root + "/bailey-rules-test"
	for _, dir := range []string{group, group + "/below"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
	}
	in := func(dir string) error {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		cmd := exec.Command(self(t))
		cmd.Env = append(os.Environ(), helperVariable+"=connect")
		cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(d.Fd())}
		if out, err := cmd.CombinedOutput(); err != nil {
			if strings.Contains(string(out), "operation not permitted") {
				return os.ErrPermission
			}
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	install(t, r, rule("g", Connect, Match{Cgroup: "/bailey-rules-test"}))
	refused(t, "in the group", in(group))
	refused(t, "below it", in(group+"/below"))
	allowed(t, "beside it", in(cgroup2.Root))
	if _, err := r.Install(rule("own", Connect, Match{Cgroup: "/own"})); err == nil {
		t.Error("a rule for the platform's own control group was installed")
	}
	id := r.entries[r.find("acme", "g").slot].target.cgroup
	install(t, r, rule("g", Connect, Match{CgroupID: id}))
	if got := r.List()[0].Rule.Match.Cgroup; got != "/bailey-rules-test" {
		t.Errorf("by its number it is %q", got)
	}
}

// leaseEnds waits until a file can be written again, for ten seconds at most; the caller checks.
func leaseEnds(path string) {
	for deadline := time.Now().Add(10 * time.Second); write(path) != nil && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the kernel's clock
	}
}

// TestLease: the kernel ends a lease by itself; what is left is removed when somebody looks, and told as what it is, why ever they look.
func TestLease(t *testing.T) {
	var last Change
	r := newRules(t, func(c *Config) { c.Changed = func(c Change) { last = c } })
	y := newYard(t)
	short := rule("short", OpenWrite, Match{File: y.file})
	short.Lease = 3 * time.Second // attaching takes a second on a busy machine
	install(t, r, short)
	refused(t, "within the lease", write(y.file))
	leaseEnds(y.file)
	allowed(t, "after the lease", write(y.file))
	if len(r.entries) != 1 || len(r.List()) != 0 {
		t.Error("nobody looked, and it is gone; or it is still listed")
	}
	r.sweep()
	if links, _ := filepath.Glob(testPins + "/*/" + bpflsm.LinkPin("*")); len(links) > 0 || len(r.entries) > 0 {
		t.Errorf("left: %v, %d rules", links, len(r.entries))
	}
	install(t, r, rule("long", OpenWrite, Match{File: y.file}))
	before := r.List()[0].Until
	install(t, r, rule("long", OpenWrite, Match{File: y.file}))
	if after := r.List()[0]; after.Until <= before {
		t.Errorf("renewed until %d, it was %d", after.Until, before)
	}
	for _, e := range r.entries {
		e.until = boottime.Now()
	}
	r.SetGrants(nil)
	if last.What != Expired || last.Rule.ID != "long" {
		t.Errorf("with its lease and its grant ended: %+v", last)
	}
}

// TestOutlivesTheAgent: the agent is killed; the rules hold, and the next agent has them.
func TestOutlivesTheAgent(t *testing.T) {
	needsVM(t)
	y := newYard(t)
	short := rule("short", OpenWrite, Match{File: y.deep})
	short.Lease = 2 * time.Second
	text, err := json.Marshal([]Rule{rule("a", OpenWrite, Match{File: y.file}), rule("b", Exec, Match{Below: y.dir}), short})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self(t))
	cmd.Env, cmd.Stderr = append(os.Environ(), helperVariable+"="+string(text)), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !bufio.NewScanner(out).Scan() {
		t.Fatal("the agent did not install")
	}
	refused(t, "with the agent", write(y.file))
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	allowed(t, "drop caches", os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
	refused(t, "without an agent", write(y.file))
	refused(t, "exec without an agent", run(y.tool))
	leaseEnds(y.deep)
	allowed(t, "after the lease, without an agent", write(y.deep))

	var changes []string
	r := newRules(t, func(c *Config) { c.Changed = func(c Change) { changes = append(changes, c.What+" "+c.Rule.ID) } })
	refused(t, "with the next agent", write(y.file))
	got := r.List()
	if len(got) != 2 || got[0].Rule.ID != "a" || got[0].Hits < 2 || !got[0].Enforced {
		t.Errorf("the next agent has %+v", got)
	}
	r.sweep()
	if want := "adopted a,adopted b,adopted short,expired short"; strings.Join(changes, ",") != want {
		t.Errorf("changes %v, want %s", changes, want)
	}

	// An agent of another version takes them over too, and tells which one's lease has ended.
	short.ID = "brief"
	install(t, r, short)
	if err := r.Leave(); err != nil {
		t.Fatal(err)
	}
	whole, _ := filepath.Glob(testPins + "/" + completePrefix + "*")
	if len(whole) != 1 {
		t.Fatalf("pins %v", whole)
	}
	if err := os.Rename(whole[0], testPins+"/"+completePrefix+"0000"); err != nil {
		t.Fatal(err)
	}
	leaseEnds(y.deep)
	changes = nil
	next := newRules(t, func(c *Config) { c.Changed = func(c Change) { changes = append(changes, c.What+" "+c.Rule.ID) } })
	if want := "adopted a,adopted b,expired brief"; strings.Join(changes, ",") != want {
		t.Errorf("with another version: changes %v, want %s", changes, want)
	}
	refused(t, "with an agent of another version", write(y.file))
	if got := next.List(); len(got) != 2 || got[0].Hits < 3 {
		t.Errorf("an agent of another version has %+v", got)
	}
	if err := next.Leave(); err != nil {
		t.Fatal(err)
	}

	// So does one that finds them damaged.
	whole, _ = filepath.Glob(testPins + "/" + completePrefix + "*/" + bpflsm.MapPin(mapPlaces))
	if len(whole) != 1 {
		t.Fatalf("pins %v", whole)
	}
	allowed(t, "damage", os.Remove(whole[0]))
	next = newRules(t)
	refused(t, "with an agent that found damage", write(y.file))
	next.SetGrants(map[string]Grant{"acme": {Actions: []Action{Exec}, Enforce: true}})
	allowed(t, "without the grant", write(y.file))
	refused(t, "with the other grant", run(y.tool))
	next.SetGrants(nil)
	allowed(t, "without the product", run(y.tool))
}

// TestBraked: the rules of a braked product are told and hold nobody up.
func TestBraked(t *testing.T) {
	var mu sync.Mutex
	var hits []Hit
	r := newRules(t, func(c *Config) {
		c.Emit = func(h Hit) {
			mu.Lock()
			defer mu.Unlock()
			hits = append(hits, h)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	y := newYard(t)
	install(t, r, rule("w", OpenWrite, Match{File: y.file}))
	refused(t, "as it is", write(y.file))
	r.SetBraked("acme", true)
	allowed(t, "braked", write(y.file))
	if r.List()[0].Enforced {
		t.Error("the list says that it is enforced")
	}
	r.SetBraked("acme", false)
	install(t, r, rule("n", Connect, Match{Destination: netip.MustParsePrefix("127.0.0.0/8")}))
	refused(t, "connect", connect("tcp4", "127.0.0.1:9")())
	heard := func() int { mu.Lock(); defer mu.Unlock(); return len(hits) }
	for deadline := time.Now().Add(10 * time.Second); heard() < 2 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the ring's reader
	}
	cancel()
	allowed(t, "run", <-done)
	if len(hits) < 2 {
		t.Fatalf("heard %+v", hits)
	}
	h := hits[0]
	if h.Rule.ID != "w" || !h.Refused || h.Name != "file" || h.PID != uint32(os.Getpid()) || h.Ino == 0 || h.Comm == "" || h.Start == 0 {
		t.Errorf("heard %+v", h)
	}
	if n := hits[len(hits)-1]; n.Rule.ID != "n" || n.Destination.String() != "127.0.0.1:9" {
		t.Errorf("heard %+v", n)
	}
}

// TestCritical: what the machine cannot do without is out of reach, also when it comes to be that later.
func TestCritical(t *testing.T) {
	vital := false
	var changes []Change
	r := newRules(t, func(c *Config) {
		c.Critical = func(f *event.File) bool {
			return strings.HasSuffix(f.Path, "/critical") || vital && strings.HasSuffix(f.Path, "/file")
		}
		c.Changed = func(c Change) { changes = append(changes, c) }
	})
	y := newYard(t)
	for _, path := range []string{y.dir + "/critical", y.dir + "/vital"} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, bad := range map[string]Rule{
		"file":    rule("x", OpenWrite, Match{File: y.dir + "/critical"}),
		"below":   rule("x", OpenWrite, Match{Below: y.dir + "/vital"}),
		"subject": rule("x", Exec, Match{Executable: y.tool}),
	} {
		if _, err := r.Install(bad); !errors.Is(err, ErrCritical) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Symlink(y.dir+"/critical", y.dir+"/innocent"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Install(rule("x", OpenWrite, Match{File: y.dir + "/innocent"})); !errors.Is(err, ErrCritical) {
		t.Errorf("by a link: %v", err)
	}
	install(t, r, rule("w", OpenWrite, Match{File: y.file}))
	refused(t, "before it is critical", write(y.file))
	vital = true
	r.Recheck()
	allowed(t, "since it is critical", write(y.file))
	if last := changes[len(changes)-1]; last.What != Disabled {
		t.Errorf("the last change is %+v", last)
	}
}

// TestManyRules: a product's rules are bounded, for the same thing too, and all of them hold.
func TestManyRules(t *testing.T) {
	r := newRules(t, func(c *Config) { c.PerProduct = 40 })
	y := newYard(t)
	for i := range 40 {
		dir := fmt.Sprintf("%s/many-%d", y.dir, i)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		install(t, r, rule(fmt.Sprint(i), OpenWrite, Match{Below: dir}))
	}
	for i := range 40 {
		refused(t, "write", os.WriteFile(fmt.Sprintf("%s/many-%d/x", y.dir, i), nil, 0o644))
	}
	if _, err := r.Install(rule("more", OpenWrite, Match{File: y.file})); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
	for i := range cellShare {
		other := rule(fmt.Sprint("o", i), Action(1+i%2), Match{File: y.file})
		other.Product = "other"
		install(t, r, other)
	}
	other := rule("more", Exec, Match{File: y.file})
	other.Product = "other"
	if _, err := r.Install(other); !errors.Is(err, ErrFull) {
		t.Errorf("one more for the same file: %v", err)
	}
}
