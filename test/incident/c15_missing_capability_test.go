package incident

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"bailey/internal/roottest"
	"bailey/test/rig"
)

// Falcon in reduced functionality.
//
// Date: 2026-06-08.
// Source: github.com/shunkakinoki/dotfiles/pull/1898.
// Shipped: a kernel update under a sensor. Its module for prevention did not load, its service was "active", and nothing was prevented.
// Must: G13. What a machine lacks is said, with what to do about it, by status and by doctor; an agent that cannot ask does not run and
// pretend.
func TestC15MissingCapability(t *testing.T) {
	t.Parallel()
	s := newSceneWith(t, func(s *scene) string {
		s.Wrap = hiding(t, s.Dir, "/sys/kernel/btf/vmlinux")
		return ""
	})
	s.replay(story{ID: "C15-01a", Name: "Falcon in reduced functionality, 2026", Must: "G13",
		Did: "none: the kernel that the agent starts on shows no BTF"}, func(r *replay) {
		r.watchFor(300 * time.Millisecond)
		r.saysDegraded("sensor.process")
		if out := r.Must("status"); !strings.Contains(out, "sensor.process") {
			r.errorf("status does not say what is missing: %s", out)
		}
		for line := range strings.Lines(r.Must("doctor")) {
			if strings.Contains(line, "sensor.process") && !strings.HasPrefix(line, "degraded") {
				r.errorf("doctor: %s", line)
			}
		}
	})
	s.replay(story{ID: "C15-01b", Name: "Falcon in reduced functionality, 2026", Must: "G13",
		Did: "none: an agent is started where the kernel does not let it ask"}, func(r *replay) {
		if _, err := exec.LookPath("setpriv"); err != nil {
			roottest.Unavailable(t, "needs setpriv (util-linux)")
		}
		r.watchFor(300 * time.Millisecond)
		other := rig.New(t, built, "")
		cmd := exec.Command("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", other.Exe, "agent",
			"--config", other.Config, "--state", other.State, "--run", other.Run, "--watch", other.Scratch)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 4 || !strings.Contains(string(out), "CAP_SYS_ADMIN") {
			r.errorf("an agent that cannot ask: %v: %s", err, out)
		}
	})
}
