package contain_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"bailey/agent/product/cgroup"
)

// attempt is one thing that a contained product tries for real.
type attempt struct {
	row  string
	args []string
	want string // part of the error; "ok:" for what must work
	// control runs the same attempt uncontained as root first, where it must succeed: a refusal proves something only if
	// it is the containment's.
	control bool
}

// victims are the things on the host that the product goes for.
type victims struct {
	dir     string // granted read-only
	secret  string // root-only file in it
	other   string // another product's state
	sleeper int    // a host process
	unix    string // listening sockets of the host
	ungiven string
	tcp     string
}

func newVictims(t *testing.T) victims {
	t.Helper()
	base := t.TempDir()
	v := victims{dir: filepath.Join(base, "granted"), other: filepath.Join(base, "other"), unix: filepath.Join(base, "given.sock"), ungiven: filepath.Join(base, "ungiven.sock")}
	for _, d := range []string{v.dir, v.other} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	v.secret = filepath.Join(v.dir, "secret")
	write(t, v.secret, "root only", 0o600)
	write(t, filepath.Join(v.dir, "public"), "for everyone", 0o666)
	write(t, filepath.Join(v.other, "key"), "other product's", 0o644)
	for _, l := range [][2]string{{"unix", v.unix}, {"unix", v.ungiven}, {"unix", "@bailey-abstract"}, {"tcp", "127.0.0.1:0"}} {
		ln, err := net.Listen(l[0], l[1])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		if l[0] == "tcp" {
			v.tcp = ln.Addr().String()
		} else if l[1][0] != '@' {
			if err := os.Chmod(l[1], 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	v.sleeper = cmd.Process.Pid
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return v
}

// listening is what becomes of it: Landlock denies it from version 4 on. Before that a product may listen to itself, on its own loopback.
func listening() string {
	if version, _, _ := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); int(version) < 4 {
		return "ok:"
	}
	return "denied"
}

func attempts(v victims) []attempt {
	pid := fmt.Sprint(v.sleeper)
	listen := listening()
	return []attempt{
		// files
		{"read_etc_shadow", []string{"read", "/etc/shadow"}, "no such file", true},
		{"read_root_only_file_in_granted_directory", []string{"read", v.secret}, "permission denied", true},
		{"read_public_file_in_granted_directory", []string{"read", filepath.Join(v.dir, "public")}, "ok: for everyone", true},
		{"write_public_file_in_granted_directory", []string{"append", filepath.Join(v.dir, "public")}, "denied|read-only", true},
		{"read_other_products_state", []string{"read", filepath.Join(v.other, "key")}, "no such file", true},
		{"list_host_sysfs", []string{"list", "/sys"}, "no such file", true},
		{"write_release", []string{"create", "/product/new"}, "denied|read-only", false},
		{"change_own_program", []string{"append", "/product/probe"}, "denied|read-only", false},
		{"chmod_own_program", []string{"chmod", "/product/probe"}, "denied|read-only|not permitted", false},
		{"write_root", []string{"create", "/new"}, "denied|read-only", false},
		{"write_etc", []string{"create", "/etc/passwd"}, "denied|read-only", false},
		{"write_state", []string{"create", "/state/mine"}, "ok:", false},
		{"write_tmp", []string{"create", "/tmp/mine"}, "ok:", false},
		{"execute_from_state", []string{"copy_and_execute", "/state"}, "permission denied", false},
		{"execute_from_tmp", []string{"copy_and_execute", "/tmp"}, "permission denied", false},
		{"setuid_program_gains_nothing", []string{"execute", "/product/setuid"}, fmt.Sprintf("Uid: %d %d %d %d", testUID, testUID, testUID, testUID), false},
		{"make_device", []string{"mknod", "/tmp"}, "not permitted|denied", false},
		{"list_devices", []string{"list", "/dev"}, "ok: fd full null random shm stderr stdin stdout urandom zero", false},
		{"read_kernel_memory", []string{"read", "/proc/kcore"}, "ok:|no such file", false}, // /dev/null in its place
		{"read_kernel_symbols", []string{"read", "/proc/kallsyms"}, "ok:", false},
		{"write_sysctl", []string{"append", "/proc/sys/kernel/hostname"}, "denied|read-only", true},
		{"list_processes", []string{"list", "/proc"}, "ok:", true},
		{"open_by_handle", []string{"handle", "/product/probe"}, "not permitted", false},

		// sockets
		{"connect_granted_socket", []string{"connect", v.unix}, "ok:", true},
		{"connect_socket_not_granted", []string{"connect", v.ungiven}, "no such file", true},
		{"connect_abstract_socket", []string{"connect", "@bailey-abstract"}, "refused|not permitted", true},
		{"connect_host_loopback", []string{"connect_tcp", v.tcp}, "denied|refused", true},
		{"connect_internet", []string{"connect_tcp", "192.0.2.1:80"}, "denied|unreachable", false},
		{"listen_tcp", []string{"socket_listen"}, listen, true},
		{"raw_socket", []string{"socket", "2", "3", "255"}, "protocol not supported", true},
		{"packet_socket", []string{"socket", "17", "3", "0"}, "not supported by protocol", true},
		{"multipath_tcp_socket", []string{"socket", "2", "1", "262"}, "protocol not supported", true},
		{"udp_socket", []string{"socket", "2", "2", "17"}, "ok:", true},
		{"netlink_socket", []string{"socket", "16", "3", "0"}, "not supported by protocol", true},

		// other processes; pid 1 is the product's own init, with nothing that the product has not
		{"ptrace_host_process", []string{"ptrace_attach", pid}, "not permitted", false},
		{"ptrace_init", []string{"ptrace_seize", "1"}, "not permitted", false},
		{"ptrace_itself_as_tracee", []string{"ptrace_attach", "2"}, "not permitted", false},
		{"read_host_process_memory", []string{"vm_read", pid}, "not permitted", true},
		{"read_init_memory", []string{"vm_read", "1"}, "not permitted", false},
		{"open_init_memory", []string{"read", "/proc/1/mem"}, "no such file|denied", false},
		{"open_host_process_memory", []string{"read", "/proc/" + pid + "/mem"}, "no such file", false},
		{"open_init_root", []string{"list", "/proc/1/root"}, "no such file|denied", false},
		{"kill_host_process", []string{"kill", pid}, "no such process", false},
		{"kill_init", []string{"kill", "1"}, "ok:", false}, // accepted and without effect: the batch goes on
		{"kill_own_child", []string{"child"}, "ok: killed my own child", true},
		{"steal_descriptor", []string{"pidfd_getfd", "1"}, "not permitted", false},

		// mounts and namespaces
		{"mount", []string{"mount"}, "not permitted", false},
		{"remount_release_writable", []string{"remount", "/product"}, "not permitted", false},
		{"umount_proc_mask", []string{"umount", "/proc/kcore"}, "not permitted", false},
		{"fsopen", []string{"fsopen"}, "not permitted", true},
		{"open_tree", []string{"open_tree"}, "not permitted", true},
		{"chroot", []string{"chroot"}, "not permitted", true},
		{"unshare_user_namespace", []string{"unshare_user"}, "not permitted|invalid argument", false},
		{"clone_user_namespace", []string{"clone_user"}, "not permitted", true},
		{"clone3_is_unknown", []string{"clone3"}, "not implemented", false},
		{"setns", []string{"setns"}, "not permitted|denied", true},

		// the kernel
		{"bpf", []string{"bpf"}, "not permitted", true},
		{"perf_event_open", []string{"perf"}, "not permitted", true},
		{"io_uring", []string{"io_uring"}, "not permitted", true},
		{"userfaultfd", []string{"userfaultfd"}, "not permitted", false},
		{"keyctl", []string{"keyctl"}, "not permitted", true},
		{"add_key", []string{"add_key"}, "not permitted", true},
		{"fanotify_init", []string{"fanotify"}, "not permitted", true},
		{"settimeofday", []string{"settime"}, "not permitted", false},
		{"syslog", []string{"syslog"}, "not permitted", true},
		{"swapoff", []string{"swapoff"}, "not permitted", false},
		{"sethostname", []string{"sethostname"}, "not permitted", false},
		{"personality", []string{"personality"}, "not permitted", true},
		{"call_newer_than_the_filter", []string{"future_call"}, "not implemented", false},

		// privileges and scheduling
		{"setuid_root", []string{"setuid"}, "not permitted", true},
		{"realtime_scheduling", []string{"realtime"}, "not permitted", true},
		{"higher_priority", []string{"priority"}, "denied|not permitted", true},
		{"lower_oom_score", []string{"oom_score"}, "denied", true},
		{"raise_limit", []string{"raise_limit"}, "not permitted", true},

		// limits
		{"file_beyond_the_limit", []string{"write_large", "/state", "6"}, "after 4 MiB: ", false},
		{"tmp_within_its_size", []string{"fill_tmp", "3"}, "ok: written", false},
		{"tmp_beyond_its_size", []string{"fill_tmp", "4"}, "no space left", false},
		{"files_beyond_the_limit", []string{"many_files", "100"}, "too many open files", true},
		{"processes_beyond_the_limit", []string{"many_procs", "60"}, "temporarily unavailable", true},
	}
}

func TestAttempts(t *testing.T) {
	a := newArena(t, cgroup.Limits{Memory: 256 << 20, Pids: 64, CPU: 2})
	v := newVictims(t)
	a.spec.Read = []string{v.dir, "/nonexistent/on/this/host"}
	a.spec.Connect = []string{v.unix}
	probe := filepath.Join(a.spec.Release, "probe")
	b, err := os.ReadFile(probe)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(a.spec.Release, "setuid"), string(b), 0o755|os.ModeSetuid)
	rows := attempts(v)
	var plan []planStep
	for _, r := range rows {
		plan = append(plan, planStep{Row: r.row, Args: r.args})
	}
	results := a.runPlan(plan)
	for _, r := range rows {
		t.Run(r.row, func(t *testing.T) {
			got := results[r.row]
			if !matches(got, r.want) {
				t.Errorf("got %q, want %q", got, r.want)
			}
			if !r.control {
				return
			}
			out, err := exec.Command(probe, r.args...).CombinedOutput()
			if s := strings.TrimSpace(string(out)); err != nil || !strings.HasPrefix(s, "ok:") {
				t.Errorf("control: uncontained root got %q, %v; it must succeed for the row to mean anything", s, err)
			}
		})
	}
	if got := results["list_processes"]; strings.Contains(got, fmt.Sprint(" ", v.sleeper, " ")) || strings.Contains(got, " 1 ") {
		t.Errorf("sees processes that are not its own: %s", got)
	}
	for _, row := range []string{"read_kernel_memory", "read_kernel_symbols"} {
		if results[row] != "ok:" && !strings.Contains(results[row], "no such file") {
			t.Errorf("%s: got %q, want nothing", row, results[row])
		}
	}
	if err := unix.Kill(v.sleeper, 0); err != nil {
		t.Errorf("the host's process is gone: %v", err)
	}
}

// matches reports whether got contains one of the alternatives in want.
func matches(got, want string) bool {
	for _, w := range strings.Split(want, "|") {
		if strings.Contains(got, w) {
			return true
		}
	}
	return false
}

func TestSetuid_control(t *testing.T) {
	a := newArena(t, cgroup.Limits{})
	b, err := os.ReadFile(filepath.Join(a.spec.Release, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "setuid")
	write(t, path, string(b), 0o755|os.ModeSetuid)
	for d := filepath.Dir(path); d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(path, "identity")
	cmd.Args[0] = "probe"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: testUID, Gid: testUID}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("Uid: %d 0 0 0", testUID)) {
		t.Fatalf("uncontained, a setuid program must gain root: %v: %s", err, out)
	}
}

// A root-only file is readable through the descriptor of a question, and through nothing else.
func TestDescriptor(t *testing.T) {
	for name, mode := range map[string]os.FileMode{"root_only": 0o600, "for_everyone": 0o666} {
		t.Run(name, func(t *testing.T) { testDescriptor(t, mode) })
	}
}

func testDescriptor(t *testing.T, mode os.FileMode) {
	a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, "root only", mode)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	p := a.start("receive")
	if err := unix.Sendmsg(int(a.socket.Fd()), []byte("q"), unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := unix.Read(int(a.socket.Fd()), buf)
	if err != nil {
		t.Fatal(err)
	}
	got := string(buf[:n])
	for _, want := range []string{"content=root only", "reopen_read=permission denied", "reopen_write=permission denied"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
	a.wait(p)
}

// TestNetwork: with the host's network it connects to others and listens for nobody, and all else is as it was.
func TestNetwork(t *testing.T) {
	a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	a.spec.Network = true
	results := a.runPlan([]planStep{
		{"connect", []string{"connect_tcp", ln.Addr().String()}},
		{"listen", []string{"socket_listen"}},
		{"multipath", []string{"socket", "2", "1", "262"}},
		{"netlink", []string{"socket", "16", "3", "0"}},
		{"packet", []string{"socket", "17", "3", "0"}},
		{"shadow", []string{"read", "/etc/shadow"}},
	})
	if !strings.HasPrefix(results["connect"], "ok") {
		t.Errorf("connect: %s", results["connect"])
	}
	if !strings.Contains(results["listen"], listening()) {
		t.Errorf("listen: %s", results["listen"])
	}
	for _, row := range []string{"multipath", "netlink", "packet", "shadow"} {
		if got := results[row]; got == "" || strings.HasPrefix(got, "ok") {
			t.Errorf("%s: %s", row, got)
		}
	}
}
