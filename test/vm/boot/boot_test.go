package boot

import (
	"strings"
	"testing"
	"time"

	"bailey/test/vm/kernel"
)

// TestBootAndReboot: systemd starts the agent, which protects; after a reboot, which it does not hold up, it does so by itself.
func TestBootAndReboot(t *testing.T) {
	besideOthers(t)
	for _, k := range []kernel.Source{kernel.Debian12, kernel.Newest} {
		t.Run(k.String(), func(t *testing.T) {
			p := start(t, k)
			p.protects("once the product is installed")
			head := p.head()
			const patience = 30 * time.Second // systemd kills after 90
			took := p.Reboot()
			if t.Logf("the shutdown took %v", took); took > patience {
				t.Error("that is too long")
			}
			p.protects("after a reboot")
			p.Must("bailey journal verify --head " + head)
			if out := p.Must("systemctl show -p ActiveState -p NRestarts bailey"); !strings.Contains(out, "ActiveState=active") || !strings.Contains(out, "NRestarts=0") {
				t.Errorf("systemd says %q", out)
			}
			if out := p.Must("bailey journal show --json --kind agent"); strings.Count(out, `"stopped"`) != 1 {
				t.Errorf("the agent did not end in order:\n%s", out)
			}
		})
	}
}

// head returns the hash of the journal's last line.
func (p protected) head() string {
	p.t.Helper()
	f := strings.Fields(p.Must("bailey journal head"))
	if len(f) < 2 {
		p.t.Fatalf("the journal's head is %q", f)
	}
	return f[1]
}
