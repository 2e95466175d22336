package incident

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	productv1 "bailey/api/product/v1"
)

// McAfee DAT 5958.
//
// Date: 2010-04-21.
// Source: the vendor's response page for 5958; itprotoday.com.
// Shipped: signatures that took svchost.exe for a virus: machines started again and again, without a network, and the cure came on
// USB sticks.
// Must: G1 G3. Nothing that the machine cannot do without is denied, whoever says so; each such deny is recorded with the name of
// its product. Here the loader, the C library and the shell are copies in a tree of their own that belongs to the critical set.
func TestC03Svchost(t *testing.T) {
	t.Parallel()
	s := newSceneWith(t, coreTree)
	core := filepath.Join(s.Scratch, "core")
	for _, c := range []struct {
		story
		settings map[string]string
	}{
		{story{ID: "C3-01", Name: "McAfee DAT 5958, 2010", Must: "G1 G3", Did: "denies the loader, the C library and the shell"},
			map[string]string{"deny_path": core}},
		{story{ID: "C3-x1", Name: "another trigger: a pattern that is in every program", Must: "G1 G3",
			Did: "denies what contains the four bytes that every program starts with"}, map[string]string{"deny_content": "\x7fELF", "only": core}},
	} {
		s.replay(c.story, func(r *replay) {
			r.plays(r.spec(c.settings))
			before := r.Product(r.name).GetCounters()
			r.watch(func() {
				for range 20 {
					if err := inTree(core, "/bin/sh", "-c", "exit 0"); err != nil {
						r.errorf("the shell: %v", err)
					}
				}
			})
			c := r.Product(r.name).GetCounters()
			if c.GetOverridden() == before.GetOverridden() || c.GetDenies() != c.GetOverridden() {
				r.errorf("%d denies, %d of them overridden", c.GetDenies(), c.GetOverridden())
			}
			r.recordsOverride("/core/bin/sh")
		})
	}
}

// recordsOverride checks that a deny that did not count is on record with its product.
func (r *replay) recordsOverride(path string) {
	r.t.Helper()
	r.Find(r.verdicts, "of an overridden deny", func(e *productv1.Event) bool {
		v := e.GetVerdict()
		if !strings.HasSuffix(v.GetFile().GetPath(), path) || !v.GetAllow() {
			return false
		}
		for _, a := range v.GetAnswers() {
			if a.GetProduct() == r.name && a.GetOutcome() == "overridden" {
				return true
			}
		}
		return false
	})
}

// coreTree puts a shell with its loader and libraries on the scratch filesystem and makes the tree critical.
func coreTree(s *scene) string {
	s.t.Helper()
	for _, program := range []string{"/bin/sh", "/bin/cat"} {
		out, err := exec.Command("ldd", program).CombinedOutput()
		if err != nil {
			s.t.Fatalf("ldd %s: %v: %s", program, err, out)
		}
		files := []string{program}
		for _, w := range strings.Fields(string(out)) {
			if filepath.IsAbs(w) {
				files = append(files, w)
			}
		}
		for _, f := range files {
			to := filepath.Join(s.Scratch, "core", f)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				s.t.Fatal(err)
			}
			s.CopyFile(f, to, 0o755)
		}
	}
	return fmt.Sprintf("[critical]\nextra = [%q]\n", filepath.Join(s.Scratch, "core"))
}

// inTree runs a program with a tree as its root.
func inTree(root, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Path, cmd.Err, cmd.Dir = program, nil, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s after %s: %w: %s", program, time.Since(start), err, out)
	}
	return nil
}
