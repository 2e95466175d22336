package incident

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Sophos Shh/Updater-B.
//
// Date: 2012-09-19.
// Source: isc.sans.edu/forums/diary/14131; esecurityplanet.com.
// Shipped: an identity that took every program with update behaviour for malware, the vendor's own updater first. It quarantined
// what would have brought the cure.
// Must: G3 G4 G8. The platform, the other products and the product's own next release start and are replaced whatever a product says;
// the cure arrives by the normal way. Here the agent, its state and its products are on the watched filesystem.
func TestC05CondemnedUpdater(t *testing.T) {
	t.Parallel()
	s := newSceneWith(t, platformOnScratch)
	s.replay(story{ID: "C5-01", Name: "Sophos Shh/Updater-B, 2012", Must: "G3 G4 G8",
		Did: "denies the agent's program, every product and itself"}, func(r *replay) {
		r.plays(r.spec(map[string]string{"deny_path": strings.Join([]string{filepath.Dir(s.Exe), s.State, s.Run}, ",")}))
		r.watch(func() {
			r.Must("status")
			r.Must("product", "restart", r.name)
			r.Running(r.name)
			if err := execs(s.Exe, "version"); err != nil {
				r.errorf("the agent's program: %v", err)
			}
			r.cureArrives()
		})
	})
	s.replay(story{ID: "C5-04", Name: "Fedora 20 selinux-policy, 2014", Must: "G3 G6 G8",
		Did: "denies whatever the agent and its command line execute or open"}, func(r *replay) {
		sp := r.spec(nil)
		sp.Files = map[string]string{"content.txt": "asker " + s.Exe + "\nprefix " + s.State + "\n"}
		r.plays(sp)
		r.watch(func() {
			r.Must("product", "restart", r.name)
			r.Running(r.name)
			r.cureArrives()
		})
	})
}

// platformOnScratch moves everything of the agent's to the scratch filesystem.
func platformOnScratch(s *scene) string {
	s.t.Helper()
	program := filepath.Join(s.Scratch, "bin", "bailey")
	if err := os.Mkdir(filepath.Dir(program), 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.CopyFile(s.Exe, program, 0o755)
	s.Exe, s.State, s.Run = program, filepath.Join(s.Scratch, "state"), filepath.Join(s.Scratch, "run")
	return ""
}

// cureArrives installs a next release that is well, by the way that every release comes.
func (r *replay) cureArrives() {
	r.t.Helper()
	sp := r.spec(map[string]string{"deny_path": "", "fault": ""})
	sp.Version, sp.Files = "2.0.0", map[string]string{"content.txt": ""}
	r.Install(sp)
	if release := r.Product(r.name).GetRelease(); !strings.HasPrefix(release, "2.0.0-") {
		r.errorf("the release is %s", release)
	}
}
