package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bailey/test/bench/contender"
	"bailey/test/started"
)

// fapolicyd is Debian's daemon, unpacked and never installed: its service denies every execution on the host.
type fapolicyd struct {
	root    string
	version string
}

// knownLibs are the sample rules that its README-rules calls "known-libs".
var knownLibs = []string{"10-languages", "20-dracut", "21-updaters", "30-patterns", "40-bad-elf", "41-shared-obj", "42-trusted-elf",
	"70-trusted-lang", "72-shell", "90-deny-execute", "95-allow-open"}

// fetchFapolicyd downloads and unpacks the package once. Its libraries are installed by `make bench`.
func fetchFapolicyd(ctx context.Context, cache string) (*fapolicyd, error) {
	root := filepath.Join(cache, "fapolicyd")
	if !exists(filepath.Join(root, "usr/sbin/fapolicyd")) {
		if err := os.RemoveAll(root + ".new"); err != nil {
			return nil, err
		}
		deb, err := contender.FetchFapolicyd(ctx, root+".new")
		if err != nil {
			return nil, err
		}
		version := strings.Split(deb, "_")[1]
		if err := os.WriteFile(filepath.Join(root+".new", "version"), []byte(version), 0o600); err != nil {
			return nil, err
		}
		if err := os.Rename(root+".new", root); err != nil {
			return nil, err
		}
	}
	version, err := os.ReadFile(filepath.Join(root, "version"))
	if err != nil {
		return nil, fmt.Errorf("read fapolicyd's version: %w", err)
	}
	return &fapolicyd{root: root, version: string(version)}, nil
}

// fapolicydLane runs fapolicyd, permissive, on the bench's filesystem.
type fapolicydLane struct {
	w     *world
	d     *fapolicyd
	rules string
	child *started.Program
}

func (l *fapolicydLane) name() string { return "fapolicyd_" + l.rules }

func (l *fapolicydLane) start(ctx context.Context) (int, error) {
	if err := l.configure(); err != nil {
		return 0, fmt.Errorf("configure fapolicyd: %w", err)
	}
	c, err := startChild("/run/fapolicyd.log", filepath.Join(l.d.root, "usr/sbin/fapolicyd"), "--debug-deny", "--permissive", "--no-details")
	if err != nil {
		return 0, err
	}
	l.child = c
	err = c.Await(ctx, time.Minute, func() error {
		if out := c.Output(); !strings.Contains(out, "Starting to listen for events") {
			return fmt.Errorf("it does not listen yet")
		}
		return nil
	})
	if err == nil {
		err = onlyOurs(c.PID())
	}
	if err != nil {
		c.Kill()
		return 0, err
	}
	return c.PID(), nil
}

func (l *fapolicydLane) stop() string {
	l.child.End(10 * time.Second)
	text, _ := os.ReadFile("/run/fapolicyd.log")
	return fmt.Sprintf("%d denies overruled by permissive", strings.Count(string(text), "dec=deny"))
}

// configure writes its configuration, rules and trust into the overlays of the private namespace.
func (l *fapolicydLane) configure() error {
	for _, d := range []string{"/etc/fapolicyd/trust.d", "/var/lib/fapolicyd", "/usr/share/fapolicyd", "/run/fapolicyd"} {
		if err := os.MkdirAll(d, 0o770); err != nil {
			return err
		}
	}
	config := contender.FapolicydConfig(l.w.fsType)
	rules := contender.FapolicydAllows
	if l.rules == "sample_rules" {
		rules = ""
		for _, n := range knownLibs {
			text, err := os.ReadFile(filepath.Join(l.d.root, "usr/share/fapolicyd/sample-rules", n+".rules"))
			if err != nil {
				return err
			}
			rules += string(text) + "\n"
		}
	}
	trust, err := trustFile()
	if err != nil {
		return err
	}
	magic, err := os.ReadFile(filepath.Join(l.d.root, "usr/share/fapolicyd/fapolicyd-magic.mgc"))
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"/etc/fapolicyd/fapolicyd.conf": config, "/etc/fapolicyd/compiled.rules": rules, "/etc/fapolicyd/fapolicyd.trust": trust,
		"/usr/share/fapolicyd/fapolicyd-magic.mgc": string(magic),
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// trustFile lists what the bench executes from its own filesystem, so that fapolicyd is not slowed by denies that permissive
// overrules.
func trustFile() (string, error) {
	programs := []string{filepath.Join(fsDir, "nothing")}
	for _, pattern := range []string{"go/bin/*", "go/pkg/tool/*/*"} {
		found, err := filepath.Glob(filepath.Join(fsDir, pattern))
		if err != nil {
			return "", err
		}
		programs = append(programs, found...)
	}
	var b strings.Builder
	for _, p := range programs {
		text, err := os.ReadFile(p)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", p, err)
		}
		fmt.Fprintf(&b, "%s %d %x\n", p, len(text), sha256.Sum256(text))
	}
	return b.String(), nil
}

// onlyOurs fails unless every fanotify mark of pid is on the bench's mount: the one thing that must never go wrong here.
func onlyOurs(pid int) error {
	ours, err := mountID(fsDir)
	if err != nil {
		return err
	}
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return err
	}
	marks := 0
	for _, name := range infos {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if !strings.HasPrefix(line, "fanotify ") || strings.HasPrefix(line, "fanotify flags") {
				continue
			}
			marks++
			if !strings.HasPrefix(line, fmt.Sprintf("fanotify mnt_id:%x ", ours)) {
				return fmt.Errorf("it marked something else than the bench's mount %x: %s", ours, line)
			}
		}
	}
	if marks != 1 {
		return fmt.Errorf("it has %d fanotify marks, 1 expected", marks)
	}
	return nil
}

// mountID returns the id of the mount at dir.
func mountID(dir string) (int, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var id, parent int
		var dev, root, point string
		if _, err := fmt.Sscan(s.Text(), &id, &parent, &dev, &root, &point); err == nil && point == dir {
			return id, nil
		}
	}
	return 0, fmt.Errorf("%s is not mounted", dir)
}
