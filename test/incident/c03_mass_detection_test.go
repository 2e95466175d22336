package incident

import (
	"strings"
	"testing"
)

// Avira's ProActiv service pack, and Malwarebytes' definitions of April 2013.
//
// Date: 2012-05-14 and 2013-04-15.
// Source: computerwoche.de/a/automatisches-update-liess-avira-amok-laufen,2512792; blog.malwarebytes.org/news/2013/04.
// Shipped: a behaviour module that blocked the shell, the file manager and the office; definitions, corrupted before they were signed, of
// which nearly every program was malware. Thousands of machines did not start any more.
// Must: G1 G3. A product that suddenly denies much loses the right to deny within 10 s, before any human does something. (Needs the
// brake.)
func TestC03MassDetection(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.replay(story{ID: "C3-09", Name: "Avira ProActiv, 2012", Must: "G1 G3", Refuses: true, Did: "denies 60 of 100 execs"}, func(r *replay) {
		list := r.programs("proactiv", 80)
		sp := r.spec(map[string]string{"deny_share": "60", "only": r.Scratch + "/proactiv"})
		sp.Questions = "exec"
		r.plays(sp)
		r.watch(func() { r.brakes(list, brakeFiles) })
	})
	s.replay(story{ID: "C3-10", Name: "Malwarebytes definitions, 2013", Must: "G1 G3", Refuses: true,
		Did: "one byte of its content turned a pattern into the empty one, which is in every file"}, func(r *replay) {
		list := append(r.programs("empty", 40), r.files("empty", "f%d", "text", 40)...)
		sp := r.spec(nil)
		sp.Files = map[string]string{"content.txt": "pattern nobody has this\n"}
		r.plays(sp)
		for _, d := range list[:3] {
			if err := d.try(); err != nil {
				r.errorf("with good content: %v", err)
			}
		}
		sp.Version, sp.Files = "2.0.0", map[string]string{"content.txt": "pattern \n"}
		r.Install(sp)
		r.watch(func() { r.brakes(list, brakeFiles) })
		r.releases(list[0])
	})
}

// TestC03PackagedFiles has a product deny what a package brought: of these it takes fewer.
func TestC03PackagedFiles(t *testing.T) {
	t.Parallel()
	d := &dpkg{t: t}
	s := newSceneWith(t, func(s *scene) string { return d.prepare(s) })
	s.replay(story{ID: "C3-x2", Name: "another trigger: files of packages", Must: "G1 G3", Refuses: true,
		Did: "denies the programs of fifty packages"}, func(r *replay) {
		var list []denial
		for i := range upgraded {
			list = append(list, denial{path: d.tool(i), exec: true})
		}
		r.plays(r.spec(map[string]string{"deny_path": d.into}))
		r.watch(func() { r.brakes(list, brakePackaged) })
		if !strings.Contains(r.Must("status"), r.name) {
			r.errorf("status does not name it")
		}
		r.releases(list[0])
	})
}
