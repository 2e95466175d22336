package packaging_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bailey/internal/leakcheck"
	"bailey/internal/roottest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// packages is what was built.
type packages struct {
	dist     string
	deb, rpm string
	later    string // a directory with both, of a later version and the same files
}

// build makes the packages, or skips where a tool is missing.
func build(t *testing.T) packages {
	t.Helper()
	if testing.Short() {
		t.Skip("builds packages")
	}
	for _, tool := range []string{"dpkg-deb", "dpkg", "rpm", "systemd-analyze"} {
		if _, err := exec.LookPath(tool); err != nil {
			roottest.Unavailable(t, tool+" is missing: run `sh tools/setup.sh test`")
		}
	}
	dist := t.TempDir()
	run(t, nil, "sh", "../../tools/build.sh", dist, "v1.0.0")
	run(t, nil, "sh", "../../tools/package.sh", dist, "v1.0.0")
	p := packages{dist: dist, deb: one(t, dist, "*.deb"), rpm: one(t, dist, "*.rpm"), later: t.TempDir()}
	for _, packager := range []string{"deb", "rpm"} {
		nfpm := exec.Command(".cache/nfpm", "package", "--config", filepath.Join(dist, "package/nfpm.yaml"), "--packager", packager, "--target", p.next(packager))
		nfpm.Dir = "../.."
		nfpm.Env = append(os.Environ(), "PACKAGE_VERSION=1.0.1", "ARCH=amd64", "SOURCE_DATE_EPOCH=1700000000")
		if out, err := nfpm.CombinedOutput(); err != nil {
			t.Fatalf("build the later version: %v\n%s", err, out)
		}
	}
	return p
}

// next is a package of a later version.
func (p packages) next(packager string) string { return filepath.Join(p.later, "next."+packager) }

func one(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	return found[0]
}

// run runs a command that must succeed and returns what it printed.
func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	out, err := try(env, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func try(env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// TestPackages is one test, because building is what takes its time.
func TestPackages(t *testing.T) {
	p := build(t)
	t.Run("deb_fields", p.debFields)
	t.Run("deb_files", p.debFiles)
	t.Run("rpm_fields", p.rpmFields)
	t.Run("rpm_files", p.rpmFiles)
	t.Run("scripts", p.scripts)
	t.Run("program", p.program)
	t.Run("unit", p.unit)
	t.Run("documents", p.documents)
	t.Run("life_of_the_deb", p.debLife)
	t.Run("life_of_the_rpm", p.rpmLife)
}

// unpack extracts the deb.
func (p packages) unpack(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	run(t, nil, "dpkg-deb", "-x", p.deb, dir)
	return dir
}

// tooShort is what a file of documentation is not.
const tooShort = 100

func (p packages) documents(t *testing.T) {
	dir := filepath.Join(p.unpack(t), "usr/share/doc/bailey")
	for name, want := range map[string]string{
		"copyright": "Apache License", "LICENSE.bpf": "GNU GENERAL PUBLIC LICENSE", "README.md": "# Bailey", "cli.md": "bailey unlock",
		"threat-model.md": "bailey.guard=off", "third-party-licences.txt": "==== golang.org/x/sys",
	} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(text) < tooShort || !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %q (%v)", name, want, err)
		}
	}
	for shell, want := range map[string]string{
		"bash-completion/completions/bailey": "__start_bailey", "zsh/vendor-completions/_bailey": "#compdef bailey", "fish/vendor_completions.d/bailey.fish": "complete -c bailey",
	} {
		text, err := os.ReadFile(filepath.Join(dir, "../..", shell))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s does not hold %q (%v)", shell, want, err)
		}
	}
}

// field finds "NAME: value" in lines.
func field(text, name string) string {
	for l := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(l, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return fmt.Sprintf("(no %s)", name)
}
