package incident

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Allow lists that know nothing any more: the class of fapolicyd's issues with an empty or stale database.
//
// Date: 2019-09 to 2024-04.
// Source: github.com/linux-application-whitelisting/fapolicyd/issues/41, /267, /295.
// Shipped: nothing, or a policy: what the rules allow is empty, so everything is denied, and the machine is locked up for its owner too.
// Must: G2 G3 G8. What is critical runs whatever the list says; for the rest the brake comes within 10 s. (Needs the brake.)
func TestC09Lockout(t *testing.T) {
	t.Parallel()
	s := newSceneWith(t, coreTree)
	s.replay(story{ID: "C9-x1", Name: "allow lists with empty rules, 2019–2024", Must: "G2 G3 G8", Refuses: true,
		Did: "allows what its rules name, and they name nothing"}, func(r *replay) {
		list := append(r.programs("lockout", 40), r.files("lockout", "f%d", "x", 40)...)
		sp := r.spec(nil)
		sp.Files = map[string]string{"content.txt": "default deny\nallow " + r.Scratch + "\n"}
		r.plays(sp)
		sp.Version, sp.Files = "2.0.0", map[string]string{"content.txt": "default deny\n"}
		r.Install(sp)
		r.watch(func() {
			r.brakes(list, brakeFiles) // first: three denies of the shell and what it loads would brake it too
			if err := inTree(filepath.Join(r.Scratch, "core"), "/bin/sh", "-c", "exit 0"); err != nil {
				r.errorf("the shell: %v", err)
			}
		})
	})
}

// TestC09LostDatabase takes the package database away from the real allow list.
func TestC09LostDatabase(t *testing.T) {
	t.Parallel()
	d := &dpkg{t: t}
	s := newSceneWith(t, func(s *scene) string { return d.prepare(s) })
	s.replay(story{ID: "C9-x2", Name: "allow lists with a stale database, 2019–2024", Must: "G2 G3 G8", Refuses: true, Dies: true,
		Did: "the allow list, in lockdown, reads a package database that has just become empty"}, func(r *replay) {
		r.name = "allowlist"
		r.InstallShipped("allowlist", `lockdown_paths = ""`, fmt.Sprintf("lockdown_paths = %q", d.into+"/**"))
		var list []denial
		for i := range upgraded {
			list = append(list, denial{path: d.tool(i), exec: true})
		}
		r.until("it knows the packages", 20*time.Second, func() error { return execs(d.tool(0)) })
		status := filepath.Join(d.admin, "status")
		full, err := os.ReadFile(status)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond) // the database's time of change has to differ for those who go by seconds
		d.write(status, "")
		r.watch(func() {
			// Whether the list denies what it does not find any more is its business; that this has a bound is the platform's.
			deadline := time.Now().Add(5 * time.Second)
			for denied := false; !denied && time.Now().Before(deadline); {
				denied = refused(list[0].try())
			}
			if refused(list[0].try()) {
				r.brakes(list, brakeFiles)
			}
		})
		d.write(status, string(full))
		r.Must("product", "remove", "allowlist")
	})
}
