package boot

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bailey/agent/config"
	"bailey/test/vm/kernel"
	"bailey/test/vm/machine"
)

// harmful is the judge's next release. Under it every boot of the machine ends with a power cut.
const harmful = "1.1.0"

// TestUncleanBoots: a release after which the power goes before the boot was good is not there at the next boot. A boot that ends in order does not count. Three
// that do not, in a row, are safe mode, until the operator says so; and the kernel's command line brings it for one boot.
func TestUncleanBoots(t *testing.T) {
	besideOthers(t)
	inject := injected(t, judge)
	withAgent(t, inject)
	next := judge
	next.Version, next.Settings = harmful, maps.Clone(judge.Settings)
	next.Settings["deny_path"] = badDir
	nextDir := injected(t, next)
	if err := os.Rename(filepath.Join(nextDir, "opt/products/judge"), filepath.Join(inject, "opt/products/harmful")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(inject, config.DefaultPath), "[boot]\ngood_after = \"40s\"\n", 0o644)
	p := protected{machine.Start(t, machine.Options{Kernel: kernel.Debian12, Inject: inject, Units: map[string]string{"bailey.service": unit}}), t}
	p.install(judge)
	p.protects("at first")
	p.eventually("the boot is good", `sleep 1; bailey boot --json | grep '"good":true'`)
	p.Must("bailey product install /opt/products/harmful --yes")
	p.Must("sync") // what the agent was told is on the disk anyway; the test's own files are to be, too
	p.PowerCut()

	p.Boot()
	p.protects("with the release before")
	p.boots("after the first unclean boot", `"unclean":1,`, `"from":"`+harmful+"-")
	if out := p.Must("bailey product show judge --json"); !strings.Contains(out, `"release":"1.0.0-`) {
		t.Errorf("in force is %s", out)
	}
	p.Reboot()
	p.eventually("the agent serves", "bailey status")
	p.boots("after a boot that ended in order", `"unclean":1,`, `"safe":"",`)

	for range 2 {
		p.PowerCut()
		p.PowerOn()
		p.eventually("the agent serves", "bailey status")
	}
	p.boots("after the third unclean boot", `"unclean":3,`, `"safe":"3 boots in a row did not end well"`)
	p.isSafe("after three unclean boots")
	p.Must("bailey boot good")
	p.protects("when the operator said so")

	p.NextBoot("", "bailey.safe=1")
	p.Reboot()
	p.eventually("the agent serves", "bailey status")
	p.boots("by the command line", `"unclean":0,`, `"safe":"the machine was booted with bailey.safe=1"`)
	p.isSafe("by the command line")
	if out, code := p.Run("bailey boot good"); code != 7 || !strings.Contains(out, "reboot without bailey.safe=1") {
		t.Errorf("bailey boot good = %q, %d", out, code)
	}
	p.Must("systemctl stop bailey && bailey recover --product judge --off && systemctl start bailey") // the boot goes on
	p.NextBoot("", "")
	p.Reboot()
	p.eventually("the agent serves", "bailey status")
	p.boots("after it", `"safe":"",`)
	if out := p.Must("bailey product show judge --json"); !strings.Contains(out, `"state":"stopped"`) {
		t.Errorf("what was switched off is %s", out)
	}
	p.Must("bailey product start judge")
	p.protects("in the end")
}

// boots fails unless `bailey boot` says all of it.
func (p protected) boots(when string, want ...string) {
	p.t.Helper()
	out := p.Must("bailey boot --json")
	for _, w := range want {
		if !strings.Contains(out, w) {
			p.t.Errorf("%s `bailey boot` says %s, and not %s", when, out, w)
		}
	}
}

// isSafe fails unless nobody is asked.
func (p protected) isSafe(when string) {
	p.t.Helper()
	if out, code := p.Run(bad); code != 0 {
		p.t.Errorf("%s: %s = %q, %d; nobody should be asked", when, bad, out, code)
	}
	if out := p.Must("bailey product show judge --json"); !strings.Contains(out, `"state":"stopped"`) || !strings.Contains(out, "off: safe mode: ") {
		p.t.Errorf("%s the product is %s", when, out)
	}
}
