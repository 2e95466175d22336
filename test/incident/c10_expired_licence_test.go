package incident

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Check Point Remote Access VPN and Endpoint.
//
// Date: 2021-01-01.
// Source: forums.theregister.com, 2021-01-05; the vendor's notice for E81.10 and earlier.
// Shipped: a date: a certificate in a driver ended, the client stopped, and the two megabytes of cure could not come any more.
// Must: G1 G10. A product that believes that its time is over harms itself alone; the agent goes by the clock that counts since the
// start of the machine, for questions and for deadlines, and by none for what is installed.
func TestC10ExpiredLicence(t *testing.T) {
	t.Parallel()
	s := newSceneWith(t, func(*scene) string { return "[questions]\nextend_cap = \"1s\"\n" })
	const name = "Check Point endpoint certificate, 2021"
	s.replay(story{ID: "C10-01a", Name: name, Must: "G1 G10", Did: "its clock says 2038, its licence is over, and it does not start"}, func(r *replay) {
		sp := r.spec(map[string]string{"clock": "2038", "licence_until": "2037-12-31"})
		r.watch(func() {
			r.attempts(sp)
			r.until("it is off, and said to be", rollBack, r.isOff)
		})
		if out := r.Must("product", "logs", r.name); !strings.Contains(out, "the licence ended on 2037-12-31") {
			r.errorf("its log does not say why: %s", out)
		}
	})
	for _, c := range []struct {
		story
		clock string
	}{
		{story{ID: "C10-01b", Name: name, Must: "G1 G2", Cap: time.Second, Did: "its clock jumps to 2100 and it extends its questions until then"}, "2100"},
		{story{ID: "C10-01c", Name: name, Must: "G1 G2", Cap: time.Second, Long: true, Did: "its clock jumps to 1970 and it extends its questions until then"}, "1970"},
	} {
		s.replay(c.story, func(r *replay) {
			before := r.watchFor(300 * time.Millisecond)
			r.plays(r.spec(map[string]string{"clock": c.clock, "extend": "clock", "hang": "true"}))
			r.watch(func() { r.until("it is not waited for", notAnswering, r.isDegraded) })
			r.backToNormal(before, r.watchFor(300*time.Millisecond))
		})
	}
	s.replay(story{ID: "C10-x1", Name: "another trigger: files from the past and the future", Must: "G1 G10",
		Did: "is healthy; its files and the agent's are dated 1970 and 2106, and the agent is started again"}, func(r *replay) {
		r.plays(r.spec(nil))
		r.watchFor(300 * time.Millisecond)
		r.Stop()
		for i, dir := range []string{filepath.Join(r.State), filepath.Join(r.State, "products", r.name), filepath.Join(r.State, "products", witness)} {
			redate(t, dir, []time.Time{time.Unix(1, 0), time.Unix(1<<32-2, 0), time.Unix(1, 0)}[i])
		}
		r.again()
		r.Running(r.name)
		r.watchFor(300 * time.Millisecond)
		r.answersAgain()
	})
}

// again starts the agent of a scene that was ended, with taps on it.
func (s *scene) again() {
	s.t.Helper()
	s.Start()
	s.Running(witness)
	s.verdicts, s.findings = s.Tap("verdict"), s.Tap("finding")
}

// redate gives everything below a directory another time of change.
func redate(t *testing.T, dir string, to time.Time) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(path, to, to)
	})
	if err != nil {
		t.Fatal(err)
	}
}
