package decide

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"bailey/internal/roottest"
	"bailey/sdk"
	"bailey/sdk/sdktest"

	"golang.org/x/sys/unix"
)

// upgrade is a root that the real dpkg installs packages into.
type upgrade struct {
	root, debs string
}

const upgraded = 50

// build makes the packages of one version: a program each.
func (u *upgrade) build(t *testing.T, version string) []string {
	t.Helper()
	var out []string
	for i := range upgraded {
		name := fmt.Sprintf("bailey-tool-%d", i)
		dir := filepath.Join(u.debs, version, name)
		write(t, filepath.Join(dir, "DEBIAN/control"), fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: a test\n", name, version))
		write(t, filepath.Join(dir, "usr/bin", name), "#!/bin/sh\necho "+version+" "+name+"\n")
		content, err := os.ReadFile(filepath.Join(dir, "usr/bin", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "DEBIAN/md5sums"), md5Line(content, "usr/bin/"+name))
		deb := dir + ".deb"
		if text, err := exec.Command("dpkg-deb", "-Znone", "--root-owner-group", "-b", dir, deb).CombinedOutput(); err != nil {
			t.Fatalf("dpkg-deb: %v\n%s", err, text)
		}
		out = append(out, deb)
	}
	return out
}

func (u *upgrade) dpkg(debs []string) *exec.Cmd {
	args := append([]string{"--root=" + u.root, "--force-script-chrootless", "--force-depends", "-i"}, debs...)
	cmd := exec.Command("dpkg", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	return cmd
}

// ask asks about an installed program under the name that it would have without the root before it. A file that dpkg
// has just taken away is not asked about.
func (u *upgrade) ask(a *sdktest.Agent, name string) (answer sdk.Answer, ok bool) {
	path := filepath.Join(u.root, "usr/bin", name)
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return sdk.Allow, false
	}
	f := &sdk.File{Path: "/usr/bin/" + name, Dev: st.Dev, Ino: st.Ino, Ctime: st.Ctim.Nano(), Size: st.Size, Mode: st.Mode, Uid: st.Uid}
	return a.AskQuestion(sdktest.Question{Kind: sdk.Exec, Process: asker(0), Path: path, File: f}), true
}

// TestUpgradeWithDpkg upgrades 50 packages with dpkg while their programs are asked about all the time in lockdown, and
// the package database is read again and again: none is denied, before, while or after (incident class C9).
func TestUpgradeWithDpkg(t *testing.T) {
	roottest.Require(t, "dpkg installs as root, below a directory of the test")
	for _, program := range []string{"dpkg", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			roottest.Unavailable(t, "needs "+program)
		}
	}
	u := &upgrade{root: t.TempDir(), debs: t.TempDir()}
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(u.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(u.root, "var/lib/dpkg/status"), "")
	if text, err := u.dpkg(u.build(t, "1")).CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, text)
	}
	next := u.build(t, "2")

	conf := filepath.Join(t.TempDir(), "policy.toml")
	write(t, conf, packagesOnly)
	d, err := New(Config{PolicyFile: conf, Root: u.root, Poll: 20 * time.Millisecond, Settle: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{d: d}
	m.run(t)
	m.Agent = sdktest.NewWith(t, d.Product(sdk.Exec), sdktest.Options{Settings: map[string]string{"mode": "lockdown"}})
	m.settle(t)
	if got, _ := u.ask(m.Agent, "bailey-tool-7"); got != sdk.Allow.CacheFile() {
		t.Fatalf("before the upgrade: %v", got)
	}

	ctx, done := context.WithCancel(t.Context())
	var text []byte
	go func() {
		defer done()
		text, err = u.dpkg(next).CombinedOutput()
	}()
	asked, denied := 0, 0
	ask := func() {
		for i := range upgraded {
			if got, ok := u.ask(m.Agent, fmt.Sprintf("bailey-tool-%d", i)); ok {
				asked++
				if got.Denied() {
					denied++
				}
			}
		}
	}
	for ctx.Err() == nil {
		ask()
	}
	if err != nil {
		t.Fatalf("upgrade: %v\n%s", err, text)
	}
	ask()
	m.eventually(t, "the upgraded programs verified by digest", func() bool {
		ask()
		got, _ := u.ask(m.Agent, "bailey-tool-49")
		return got == sdk.Allow.CacheFile()
	})
	t.Logf("%d questions", asked)
	if denied != 0 || asked < 3*upgraded {
		t.Errorf("%d of %d questions were denied: %+v", denied, asked, m.Findings())
	}

	// Afterwards a program that dpkg did not write is refused.
	m.settle(t)
	write(t, filepath.Join(u.root, "usr/bin/bailey-tool-7"), "#!/bin/sh\necho evil\n")
	if got, _ := u.ask(m.Agent, "bailey-tool-7"); got != sdk.Deny {
		t.Errorf("a replaced program: %v", got)
	}
}
