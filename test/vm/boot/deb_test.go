package boot

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bailey/internal/roottest"
	"bailey/test/vm/kernel"
	"bailey/test/vm/machine"
)

// The package in the machine, and one of a later version whose program is another.
const (
	deb     = "/opt/deb/bailey.deb"
	nextDeb = "/opt/deb/next.deb"
)

// dist is where the packages are built, once for all tests.
var dist string

func TestMain(m *testing.M) {
	var err error
	if dist, err = os.MkdirTemp("", "bailey-deb-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dist)
	os.Exit(code)
}

var buildDebs = sync.OnceValue(func() error {
	return firstError(
		func() error { return command(nil, "sh", "tools/build.sh", dist, "v1.0.0") },
		func() error { return command(nil, "sh", "tools/package.sh", dist, "v1.0.0") },
		func() error { return moveOne(filepath.Join(dist, "*.deb"), filepath.Join(dist, "first")) },
		func() error {
			return command(nil, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=v1.0.1", "-o", filepath.Join(dist, "bailey"), "./cmd/bailey")
		},
		func() error {
			return command([]string{"PACKAGE_VERSION=1.0.1", "ARCH=amd64", "SOURCE_DATE_EPOCH=1700000000"},
				".cache/nfpm", "package", "--config", filepath.Join(dist, "package/nfpm.yaml"), "--packager", "deb", "--target", filepath.Join(dist, "next"))
		},
	)
})

func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func moveOne(pattern, to string) error {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%s: found %v", pattern, found)
	}
	return os.Rename(found[0], to)
}

// command runs one at the top of the repository.
func command(env []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = "../../.."
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func copyFile(to, from string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	if closed := w.Close(); err == nil {
		err = closed
	}
	return err
}

// withDebs boots a machine that has the packages and has installed none. Nothing of the agent is on it.
func withDebs(t *testing.T, o machine.Options) protected {
	t.Helper()
	o.Inject = injected(t, judge)
	roottest.Require(t, "makes a file system once")
	if err := buildDebs(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(o.Inject, "opt/deb"), 0o755); err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{deb: "first", nextDeb: "next"} {
		if err := copyFile(filepath.Join(o.Inject, to), filepath.Join(dist, from)); err != nil {
			t.Fatal(err)
		}
	}
	return protected{machine.Start(t, o), t}
}

// TestDeb: dpkg installs the package on a running machine, replaces it by a later one while programs are judged, and leaves nothing
// of it after a purge. In between an agent that does not start holds no boot up.
func TestDeb(t *testing.T) {
	besideOthers(t)
	p := withDebs(t, machine.Options{Kernel: kernel.Debian12})
	before := p.Must(everything)
	t.Log(p.Must("dpkg -i " + deb))
	p.install(judge)
	p.protects("after the installation")
	p.unit()
	p.upgrade()

	p.broken()

	t.Log(p.Must("dpkg --purge bailey"))
	if _, code := p.Run(bad); code != 0 {
		t.Errorf("after a purge %s ends with %d", bad, code)
	}
	if after := p.Must(everything); after != before {
		t.Errorf("before the installation and after the purge differ:\n--- before\n%s--- after\n%s", before, after)
	}
}

// everything lists what is Bailey's on a machine: files, pins, control groups, processes, mounts, units, users.
const everything = `find / -xdev -name '*bailey*' -not -path '/opt/*' -not -path '/proc/*' | sort
for d in /run /sys/fs/bpf /sys/fs/cgroup /dev/shm; do find $d -iname '*bailey*'; done | sort
ls -A /sys/fs/bpf
ps -eo comm= | grep -e bailey -e faulty -e judge
grep bailey /proc/mounts
systemctl list-units --all --no-legend '*bailey*'; systemctl list-unit-files --no-legend '*bailey*'
grep -c . /etc/passwd /etc/group
:`

// unit looks at what systemd made of the unit.
func (p protected) unit() {
	p.t.Helper()
	show := p.Must("systemctl show bailey -p ActiveState,SubState,UnitFileState,NRestarts,Type,WatchdogUSec,Delegate,DelegateControllers,OOMPolicy,CanStop,StatusText,LimitMEMLOCK")
	for _, want := range []string{"ActiveState=active", "SubState=running", "UnitFileState=enabled", "NRestarts=0", "Type=notify", "WatchdogUSec=30s", "Delegate=yes",
		"DelegateControllers=cpuset", "OOMPolicy=continue", "CanStop=no", "LimitMEMLOCK=infinity"} {
		if !strings.Contains("\n"+show, "\n"+want+"\n") {
			p.t.Errorf("systemd does not say %s:\n%s", want, show)
		}
	}
	for what, command := range map[string]string{
		"the control group has a cpuset of its own": `test -e /sys/fs/cgroup/system.slice/bailey.service/cpuset.cpus`,
		"the keeper is the main process":            `[ "$(tr '\0' ' ' </proc/` + mainPID + `/cmdline)" = "/usr/bin/bailey agent " ]`,
		"keeper and agent are not for the OOM killer": `for f in $(cat /sys/fs/cgroup/system.slice/bailey.service/cgroup.procs); do
			[ "$(cat /proc/$f/oom_score_adj)" = -1000 ] || exit 1; done`,
		"mounts are its own": `[ "$(readlink /proc/` + mainPID + `/ns/mnt)" != "$(readlink /proc/1/ns/mnt)" ]`,
		"what is mounted on the machine is seen": `mount -t tmpfs none /mnt &&
			grep -q ' /mnt ' /proc/` + mainPID + `/mountinfo && umount /mnt && ! grep -q ' /mnt ' /proc/` + mainPID + `/mountinfo`,
		"the product is limited": `grep -q judge /proc/*/cgroup && cat /sys/fs/cgroup/bailey*/judge*/memory.max`,
		"root is refused a stop": `! systemctl stop bailey && systemctl -q is-active bailey`,
	} {
		if out, code := p.Run(command); code != 0 {
			p.t.Errorf("%s: not so (%d)\n%s", what, code, out)
		}
	}
}

// mainPID is the keeper, in a command of the shell's.
const mainPID = "$(systemctl show -P MainPID bailey)"

// loop runs both programs again and again until /run/end is there, and writes down what was not as it should be, how often it ran and
// the longest that it took, in hundredths of a second.
const loop = `n=0 longest=0
now() { read -r up _ </proc/uptime; up=${up%.*}${up#*.}; }
while [ ! -e /run/end ]; do
	now; begin=$up
	` + good + ` || echo "at $begin the good program: $?"
	` + bad + ` 2>/dev/null; code=$?; [ $code = 126 ] || echo "at $begin the bad program: $code"
	now; took=$((up - begin)); [ $took -le $longest ] || longest=$took
	n=$((n + 1))
done
echo "runs $n longest $longest"
`

// upgrade installs the later package while programs run: the keeper stays, and each is judged.
func (p protected) upgrade() {
	p.t.Helper()
	keeper, before := p.Must("echo "+mainPID), p.unjudged()
	p.Must("cat >/root/loop <<'EOF'\n" + loop + "EOF\nrm -f /run/end; sh /root/loop >/run/loop 2>&1 & sleep 1")
	p.t.Log(p.Must("dpkg -i " + nextDeb))
	out := p.Must("sleep 1; : >/run/end; for i in $(seq 50); do grep -q runs /run/loop && break; sleep 0.2; done; cat /run/loop")
	p.judged(out, before)
	if got := p.Must("bailey status; bailey version"); !strings.Contains(got, "v1.0.1") || strings.Contains(got, "v1.0.0") {
		p.t.Errorf("after the upgrade: %s", got)
	}
	if after := p.Must("echo " + mainPID); after != keeper {
		p.t.Errorf("the keeper was %s and is %s", keeper, after)
	}
	p.Must("systemctl -q is-active bailey")
	p.protects("after the upgrade")
}

// unjudged counts what was let through for the bad program because no product said anything in time, as agents' records and the keeper
// have it: what happens where a machine leaves them no time.
func (p protected) unjudged() int {
	p.t.Helper()
	verdicts := p.Must("sleep 2; bailey history --since 1h --json --kind verdict") // it is written once a second
	n := number(p.t, p.Must("bailey status --json"), `"bypassed"`)
	for line := range strings.Lines(verdicts) {
		if strings.Contains(line, `"`+bad+`"`) && regexp.MustCompile(`"reason":\s*"(default|nobody|overload|shutdown|incomplete)"`).MatchString(line) {
			n++
		}
	}
	return n
}

// judged looks at what the loop wrote: the good program always ran, and the bad one no more often than is accounted for.
func (p protected) judged(out string, before int) {
	p.t.Helper()
	var runs, longest, ran int
	for line := range strings.Lines(out) {
		switch {
		case strings.HasSuffix(line, "the bad program: 0\n"):
			ran++
		case strings.HasPrefix(line, "runs "):
			if _, err := fmt.Sscanf(line, "runs %d longest %d", &runs, &longest); err != nil {
				p.t.Errorf("the loop wrote %q: %v", line, err)
			}
		default:
			p.t.Errorf("while the package was replaced: %s", line)
		}
	}
	// A product that does not reply in time is started again, and until it is there nobody is asked: that has no record, and a count in the new agent.
	unjudged := p.unjudged() - before + number(p.t, p.Must("bailey status --json"), `"nobody"`)
	p.t.Logf("while the package was replaced: %d times both programs, the longest %d ms; %d questions answered by default, %d for the bad program",
		runs, longest*10, unjudged, ran)
	if runs == 0 || ran > unjudged {
		p.t.Errorf("%d times, and the bad program ran %d times where %d questions were answered by default:\n%s%s", runs, ran, unjudged, out,
			p.Must("bailey status; journalctl -b -o short-monotonic --no-pager -u bailey"))
	}
	if tooLong := 10 * time.Second; time.Duration(longest)*10*time.Millisecond > tooLong {
		p.t.Errorf("somebody waited for more than %v", tooLong)
	}
}

// number finds a number by its name in JSON; 0 if it is not there, as the command line leaves zeros out.
func number(t *testing.T, text, name string) int {
	t.Helper()
	m := regexp.MustCompile(name + `:\s*"?(\d+)`).FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
