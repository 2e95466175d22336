package packaging_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"bailey/internal/roottest"
)

// root is a directory that dpkg takes for a machine: a shell, what the scripts call, and a systemctl that writes down what it was told.
type root struct {
	t   *testing.T
	dir string
}

// tools are the programs that the package's scripts may use.
var tools = []string{"sh", "cat", "rm", "mkdir"}

const fakeSystemctl = `#!/bin/sh
echo "$*" >>/systemctl.log
case "$*" in
"-q is-active bailey.service") [ -e /active ] ;;
"-q is-enabled bailey.service") [ -e /etc/systemd/system/sysinit.target.wants/bailey.service ] ;;
"enable bailey.service") mkdir -p /etc/systemd/system/sysinit.target.wants && : >/etc/systemd/system/sysinit.target.wants/bailey.service ;;
"start bailey.service") : >/active ;;
"stop bailey.service") cat /run/systemd/system/bailey.service.d/removal.conf >>/systemctl.log && rm -f /active ;;
esac
`

func newRoot(t *testing.T) *root {
	t.Helper()
	roottest.Require(t, "dpkg enters another root directory")
	r := &root{t, t.TempDir()}
	for _, d := range []string{"usr/bin", "run/systemd/system", "tmp", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "etc"} {
		if err := os.MkdirAll(r.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"} {
		if err := errors.Join(os.MkdirAll(r.path(to), 0o755), os.Symlink(to, r.path(link))); err != nil {
			t.Fatal(err)
		}
	}
	r.write("var/lib/dpkg/status", "", 0o644)
	r.write("dev/null", "", 0o666) // a file will do
	r.write("usr/bin/systemctl", fakeSystemctl, 0o755)
	for _, name := range tools {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		r.copy(path, "usr/bin/"+name)
		for _, lib := range regexp.MustCompile(`/\S+\.so\S*`).FindAllString(run(t, nil, "ldd", path), -1) {
			r.copy(lib, lib)
		}
	}
	return r
}

func (r *root) path(name string) string { return filepath.Join(r.dir, name) }

func (r *root) write(name, text string, mode os.FileMode) {
	r.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(r.path(name)), 0o755), os.WriteFile(r.path(name), []byte(text), mode), os.Chmod(r.path(name), mode)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *root) copy(from, to string) {
	r.t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(to, string(text), 0o755)
}

func (r *root) dpkg(args ...string) (string, error) {
	return try([]string{"DEBIAN_FRONTEND=noninteractive"}, "dpkg", append([]string{"--root=" + r.dir}, args...)...)
}

// must is dpkg that must succeed.
func (r *root) must(args ...string) string {
	r.t.Helper()
	out, err := r.dpkg(args...)
	if err != nil {
		r.t.Fatalf("dpkg %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// told returns what systemctl was told since the last time.
func (r *root) told() string {
	text, err := os.ReadFile(r.path("systemctl.log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.t.Fatal(err)
	}
	_ = os.Remove(r.path("systemctl.log"))
	return strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "; ")
}

func (r *root) has(name string) bool {
	_, err := os.Lstat(r.path(name))
	return err == nil
}

func (r *root) expect(what, got, want string) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s: got\n  %s\nwant\n  %s", what, got, want)
	}
}

// debLife installs, upgrades, is refused, removes and purges.
func (p packages) debLife(t *testing.T) {
	r := newRoot(t)
	r.must("-i", p.deb)
	r.expect("install", r.told(), "enable bailey.service; daemon-reload; start bailey.service")

	r.write("etc/bailey/agent.toml", "# the operator's own\n", 0o644)
	r.write("var/lib/bailey/journal/1", "x", 0o600)
	out := r.must("-i", p.next("deb"))
	r.expect("upgrade", r.told(), "daemon-reload; -q is-active bailey.service")
	// systemctl says that it is active, and here nobody answers: that is said, and the package is installed.
	if !strings.Contains(out, "bailey: the agent is not running") || !strings.Contains(out, "the old agent goes on") {
		t.Errorf("upgrade without an agent: %s", out)
	}
	if text, err := os.ReadFile(r.path("etc/bailey/agent.toml")); err != nil || string(text) != "# the operator's own\n" {
		t.Errorf("the configuration after an upgrade: %q, %v", text, err)
	}
	p.handsOver(r)
	p.refusedWhileLocked(r)

	r.must("-r", "bailey")
	r.expect("remove", r.told(), "daemon-reload; stop bailey.service; [Unit]; RefuseManualStop=no; daemon-reload; daemon-reload")
	if r.has("usr/bin/bailey") || r.has("usr/lib/bailey") || r.has("run/systemd/system/bailey.service.d") {
		t.Error("the program is left after a removal")
	}
	if !r.has("etc/bailey/agent.toml") || !r.has("var/lib/bailey/journal/1") {
		t.Error("a removal takes configuration or state")
	}
	r.must("-P", "bailey")
	for _, name := range []string{"etc/bailey", "var/lib/bailey", "etc/systemd/system/sysinit.target.wants/bailey.service"} {
		if r.has(name) {
			t.Errorf("%s is left after a purge", name)
		}
	}
}

// handsOver: the running agent is replaced, not stopped. The program of the later package stands in for itself: it is what the
// script calls, so its call is seen by the shell's trace.
func (p packages) handsOver(r *root) {
	r.t.Helper()
	dir := r.t.TempDir()
	run(r.t, nil, "dpkg-deb", "-e", p.next("deb"), dir)
	text, err := os.ReadFile(filepath.Join(dir, "postinst"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.write("tmp/postinst", string(text), 0o755)
	r.write("tmp/bailey", "#!/bin/sh\necho \"bailey $*\" >>/systemctl.log\n", 0o755)
	run(r.t, nil, "mv", r.path("usr/bin/bailey"), r.path("tmp/real"))
	run(r.t, nil, "cp", r.path("tmp/bailey"), r.path("usr/bin/bailey"))
	run(r.t, nil, "chroot", r.dir, "/tmp/postinst", "configure", "1.0.0-1")
	r.expect("upgrade", r.told(), "daemon-reload; -q is-active bailey.service; bailey agent upgrade /usr/bin/bailey")
	run(r.t, nil, "mv", r.path("tmp/real"), r.path("usr/bin/bailey"))
}

// refusedWhileLocked: nothing is half removed or half upgraded.
func (p packages) refusedWhileLocked(r *root) {
	r.t.Helper()
	run(r.t, nil, "mv", r.path("usr/bin/bailey"), r.path("tmp/real"))
	r.write("usr/bin/bailey", "#!/bin/sh\nexit 7\n", 0o755)
	out, err := r.dpkg("-r", "bailey")
	if err == nil || !strings.Contains(out, "--scope stop,upgrade,config,state") {
		r.t.Errorf("remove while locked: %v\n%s", err, out)
	}
	r.expect("remove while locked", r.told(), "")
	out, err = r.dpkg("-i", p.next("deb"))
	if err == nil || !strings.Contains(out, "--scope upgrade") {
		r.t.Errorf("upgrade while locked: %v\n%s", err, out)
	}
	if text, err := os.ReadFile(r.path("usr/bin/bailey")); err != nil || string(text) != "#!/bin/sh\nexit 7\n" {
		r.t.Errorf("the program was replaced while locked: %v", err)
	}
	if out := run(r.t, nil, "dpkg", "--root="+r.dir, "-s", "bailey"); field(out, "Status") != "install ok installed" {
		r.t.Errorf("the package is %q after a refusal", field(out, "Status"))
	}
	_ = r.told()
	run(r.t, nil, "mv", r.path("tmp/real"), r.path("usr/bin/bailey"))
}

// rpm is rpm with this root, and without the packages that a whole machine has.
func (r *root) rpm(args ...string) (string, error) {
	return try(nil, "rpm", append([]string{"--root=" + r.dir, "--dbpath=/var/lib/rpm", "--nosignature", "--nodeps"}, args...)...)
}

func (r *root) mustRPM(args ...string) string {
	r.t.Helper()
	out, err := r.rpm(args...)
	if err != nil {
		r.t.Fatalf("rpm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// rpmLife installs, upgrades, is refused and removes: the scripts are told of each in rpm's way.
func (p packages) rpmLife(t *testing.T) {
	r := newRoot(t)
	r.mustRPM("-i", p.rpm)
	r.expect("install", r.told(), "enable bailey.service; daemon-reload; start bailey.service")
	r.write("etc/bailey/agent.toml", "# the operator's own\n", 0o644)
	r.write("var/lib/bailey/journal/1", "x", 0o600)
	r.mustRPM("-U", p.next("rpm"))
	r.expect("upgrade", r.told(), "daemon-reload; -q is-active bailey.service")
	if text, err := os.ReadFile(r.path("etc/bailey/agent.toml")); err != nil || string(text) != "# the operator's own\n" {
		t.Errorf("the configuration after an upgrade: %q, %v", text, err)
	}
	run(t, nil, "mv", r.path("usr/bin/bailey"), r.path("tmp/real"))
	r.write("usr/bin/bailey", "#!/bin/sh\nexit 7\n", 0o755)
	if out, err := r.rpm("-e", "bailey"); err == nil || !strings.Contains(out, "--scope stop,upgrade,config,state") {
		t.Errorf("remove while locked: %v\n%s", err, out)
	}
	if out, err := r.rpm("-U", "--oldpackage", p.rpm); err == nil || !strings.Contains(out, "--scope upgrade") {
		t.Errorf("upgrade while locked: %v\n%s", err, out)
	}
	r.expect("while locked", r.told(), "")
	run(t, nil, "mv", r.path("tmp/real"), r.path("usr/bin/bailey"))
	r.mustRPM("-e", "bailey")
	r.expect("remove", r.told(), "daemon-reload; stop bailey.service; [Unit]; RefuseManualStop=no; daemon-reload; disable bailey.service; daemon-reload")
	if r.has("usr/bin/bailey") || r.has("usr/lib/bailey") {
		t.Error("the program is left after a removal")
	}
	if !r.has("var/lib/bailey/journal/1") {
		t.Error("a removal takes the state")
	}
}
