package incident

import (
	"crypto/md5"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bailey/internal/roottest"
)

// fapolicyd's trust database behind the package manager.
//
// Date: 2019-09, 2020-07, 2024-04.
// Source: github.com/linux-application-whitelisting/fapolicyd/issues/41, /78, /295.
// Shipped: nothing: after an upgrade the new programs are not in the allow list's database yet, scripts of packages fail, and in one of
// four runs the reload raced and every later exec was denied.
// Must: G2 G3 G8. A real dpkg upgrades packages while their programs run, the real allow list reloads its database again and again and is
// killed in the middle of it: the upgrade ends well and no program of a package is denied.
func TestC09PackageUpgrade(t *testing.T) {
	t.Parallel()
	d := &dpkg{t: t}
	s := newSceneWith(t, func(s *scene) string { return d.prepare(s) })
	next := d.build("2")
	s.replay(story{ID: "C9-01", Name: "fapolicyd and the package manager, 2019–2024", Must: "G2 G3 G8", Dies: true,
		Did: "the allow list, in lockdown, is killed while dpkg upgrades 50 packages and it reads their database anew"}, func(r *replay) {
		r.InstallShipped("allowlist", `lockdown_paths = ""`, fmt.Sprintf("lockdown_paths = %q", d.into+"/**"))
		unknown := r.Agent.File("opt/unknown", "#!/bin/sh\nexit 0\n", 0o755)
		r.until("it knows the packages and refuses what none brought", 20*time.Second, func() error {
			if err := execs(unknown); !refused(err) {
				return fmt.Errorf("the unknown program: %w", err)
			}
			return execs(d.tool(7))
		})
		var ran, denied atomic.Int64
		r.watch(func() {
			done := make(chan struct{})
			go func() { defer close(done); d.run(next...) }()
			kill := time.NewTicker(400 * time.Millisecond)
			defer kill.Stop()
			kills := 0
			for upgrading := true; upgrading; {
				for i := range upgraded {
					if err := execs(d.tool(i)); refused(err) {
						denied.Add(1)
					}
					ran.Add(1)
				}
				select {
				case <-done:
					upgrading = false
				case <-kill.C:
					if p := r.Product("allowlist"); p.GetPid() > 0 && kills < 3 {
						kills++
						_ = syscall.Kill(int(p.GetPid()), syscall.SIGKILL)
					}
				default:
				}
			}
		})
		if denied.Load() > 0 {
			r.errorf("%d of %d execs of packages' programs were denied", denied.Load(), ran.Load())
		}
		r.Running("allowlist")
		for i := range upgraded {
			if err := execs(d.tool(i)); err != nil {
				r.errorf("after the upgrade: %v", err)
			}
		}
		out, err := exec.Command(d.tool(7)).Output()
		if err != nil || strings.TrimSpace(string(out)) != "2" {
			r.errorf("the upgraded program said %q: %v", out, err)
		}
		r.Must("product", "remove", "allowlist")
	})
}

const upgraded = 50

// dpkg is the real one, with a database of its own and packages whose files are on the scratch filesystem.
type dpkg struct {
	t                *testing.T
	dir, into, admin string
}

// prepare installs the packages in their first version and has the agent, and so its products, see their database as the
// machine's.
func (d *dpkg) prepare(s *scene) string {
	d.t.Helper()
	for _, program := range []string{"dpkg", "dpkg-deb", "unshare"} {
		if _, err := exec.LookPath(program); err != nil {
			roottest.Unavailable(d.t, "needs "+program)
		}
	}
	d.dir, d.into, d.admin = s.Dir, filepath.Join(s.Scratch, "opt"), filepath.Join(s.Scratch, "dpkg")
	for _, sub := range []string{"info", "updates", "triggers"} {
		if err := os.MkdirAll(filepath.Join(d.admin, sub), 0o755); err != nil {
			d.t.Fatal(err)
		}
	}
	d.write(filepath.Join(d.admin, "status"), "")
	d.run(d.build("1")...)
	s.Wrap = []string{"unshare", "-m", "sh", "-c", `mount --bind "$0" /var/lib/dpkg && exec "$@"`, d.admin}
	return ""
}

func (d *dpkg) tool(i int) string { return filepath.Join(d.into, fmt.Sprintf("tool-%d", i)) }

func (d *dpkg) write(path, text string) {
	d.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// build makes the packages of one version: a program each.
func (d *dpkg) build(version string) []string {
	d.t.Helper()
	var out []string
	for i := range upgraded {
		name := fmt.Sprintf("bailey-incident-%d", i)
		tree := filepath.Join(d.dir, "debs-"+version, name)
		d.write(filepath.Join(tree, "DEBIAN/control"), fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: a test\n", name, version))
		text := fmt.Sprintf("#!/bin/sh\necho %s\n", version)
		d.write(filepath.Join(tree, d.tool(i)), text)
		if err := os.Chmod(filepath.Join(tree, d.tool(i)), 0o755); err != nil {
			d.t.Fatal(err)
		}
		d.write(filepath.Join(tree, "DEBIAN/md5sums"), fmt.Sprintf("%x  %s\n", md5.Sum([]byte(text)), strings.TrimPrefix(d.tool(i), "/")))
		if said, err := exec.Command("dpkg-deb", "-Znone", "--root-owner-group", "-b", tree, tree+".deb").CombinedOutput(); err != nil {
			d.t.Fatalf("dpkg-deb: %v\n%s", err, said)
		}
		out = append(out, tree+".deb")
	}
	return out
}

// run installs packages.
func (d *dpkg) run(debs ...string) {
	d.t.Helper()
	cmd := exec.Command("dpkg", append([]string{"--admindir=" + d.admin, "--force-depends", "-i"}, debs...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if said, err := cmd.CombinedOutput(); err != nil {
		d.t.Errorf("dpkg: %v\n%s", err, said)
	}
}
