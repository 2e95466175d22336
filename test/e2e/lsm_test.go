package e2e

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"bailey/test/rig"
)

// TestWithoutBPFLSM: where bpf is not among the security modules (Ubuntu's kernels as they come), the agent protects with what does not
// need it, and the doctor names what is attached there and never called.
func TestWithoutBPFLSM(t *testing.T) {
	list, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil || slices.Contains(strings.Split(strings.TrimSpace(string(list)), ","), "bpf") {
		t.Skip("needs a kernel without bpf in lsm=: it runs in the machine no-bpf-lsm of `make vm`")
	}
	a := startAgent(t, "[guard]\nenabled = \"auto\"\n")
	bad := a.Program("bad")
	a.Install(rig.Spec{Name: "judge", Questions: "exec", Settings: map[string]string{"deny_path": bad}})
	if err := execs(a.Program("good")); err != nil {
		t.Errorf("a good program: %v", err)
	}
	a.Eventually("it refuses", 20*time.Second, func() error { return refusal(execs(bad)) })
	a.Install(rig.Spec{Name: "ruler", Request: `rules = ["exec"]`})
	a.Eventually("the doctor says which hooks are not called, and what to do", 20*time.Second, func() error {
		out, _ := a.Bailey("doctor") // its exit status is about other things too
		for _, want := range []string{
			`(?m)^(absent|degraded) +bpf\.lsm_active `,
			`(?m)^degraded +agent: guard .*file_open is attached\n.*put lsm=\S+,bpf on the kernel`,
			`(?m)^degraded +agent: rules .*file_open is attached\n.*put lsm=\S+,bpf on the kernel`,
		} {
			if !regexp.MustCompile(want).MatchString(out) {
				return fmt.Errorf("no %s in:\n%s", want, out)
			}
		}
		return nil
	})
}
