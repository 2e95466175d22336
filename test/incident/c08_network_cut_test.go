package incident

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	controlv1 "bailey/api/control/v1"
	"bailey/test/rig"
)

// Kaspersky's web anti-virus.
//
// Date: 2013-02-04.
// Source: bbc.co.uk/news/technology-21352762; computerweekly.com/news/2240177678.
// Shipped: a database that blocked every connection; the cure had to come through one.
// Must: G3 G8. Products have no say in connections here. What they could do is deny the programs and files of the network: those that
// the machine needs they cannot, and neither do they come between an operator and the agent.
func TestC08NetworkCut(t *testing.T) {
	t.Parallel()
	s := newSceneWith(t, networkTree)
	net := filepath.Join(s.Scratch, "net")
	s.replay(story{ID: "C8-01", Name: "Kaspersky web anti-virus, 2013", Must: "G3 G8",
		Did: "denies every program and file of the network"}, func(r *replay) {
		r.plays(r.spec(map[string]string{"answer": "deny", "only": net}))
		r.watch(func() {
			for range 5 {
				for _, program := range []string{"sshd", "dhclient", "resolver"} {
					if err := execs(filepath.Join(net, program)); err != nil {
						r.errorf("%s: %v", program, err)
					}
				}
				for _, file := range []string{"resolv.conf", "hosts", "ca-certificates.crt"} {
					if _, err := os.ReadFile(filepath.Join(net, file)); err != nil {
						r.errorf("%s: %v", file, err)
					}
				}
			}
		})
		c := r.Product(r.name).GetCounters()
		if c.GetOverridden() == 0 || c.GetOverridden() != c.GetDenies() {
			r.errorf("%d denies, %d of them overridden", c.GetDenies(), c.GetOverridden())
		}
	})
	s.replay(story{ID: "C8-x1", Name: "another trigger: the operator's channel", Must: "G3 G8",
		Did: "goes for the agent's control socket and denies whoever opens something"}, func(r *replay) {
		socket := filepath.Join(r.Run, controlv1.SocketName)
		r.plays(r.spec(map[string]string{"fault": "seize", "at": "ready", "targets": socket, "deny_path": r.Run}))
		r.watch(func() {
			r.everyAttemptFailed("write_0", "unlink_0", "dial_0", "internet")
			for range 5 {
				r.Must("status")
			}
		})
	})
}

// networkTree puts what stands for the network's programs and files on the scratch filesystem and makes it critical, as the
// machine's own are.
func networkTree(s *scene) string {
	for _, program := range []string{"sshd", "dhclient", "resolver"} {
		s.Agent.File(filepath.Join("net", program), string(rig.TinyProgram(program)), 0o755)
	}
	for _, file := range []string{"resolv.conf", "hosts", "ca-certificates.crt"} {
		s.Agent.File(filepath.Join("net", file), "here", 0o644)
	}
	return fmt.Sprintf("[critical]\nextra = [%q]\n", filepath.Join(s.Scratch, "net"))
}
