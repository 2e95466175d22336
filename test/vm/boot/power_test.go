package boot

import (
	"fmt"
	"strings"
	"testing"

	"bailey/test/vm/kernel"
)

// TestPowerCut: the power goes while the journal and the recorder are written. Every action that was acknowledged is in the journal,
// the last one a moment before included; what happened ten seconds before is in the record; and the next boot protects.
func TestPowerCut(t *testing.T) {
	besideOthers(t)
	const rounds, actions = 3, 3
	p := start(t, kernel.Debian12)
	p.protects("at first")
	acknowledged := 0
	for round := range rounds {
		marker := fmt.Sprintf("%s/round%d", badDir, round)
		p.Must("cp " + bad + " " + marker)
		p.eventually("the marker is refused", "! "+marker)
		p.Must("(while :; do " + good + "; " + bad + "; done) >/dev/null 2>&1 &") // both are written until the end
		p.Must("sleep 10")                                                        // what the recorder may owe
		head := p.head()
		p.Must("sleep 1") // what the journal may owe of denies
		for range actions {
			p.Must("bailey cache clear")
			acknowledged++
		}
		p.PowerCut()
		p.Boot()

		p.eventually("the agent serves", "bailey status")
		p.Must("bailey boot good") // three such boots in a row would be safe mode
		t.Log(p.Must("bailey journal verify --head " + head))
		done := 0
		for line := range strings.Lines(p.Must("bailey journal show --json --kind operator")) {
			if strings.Contains(line, `"CacheClear"`) && strings.Contains(line, `"done"`) {
				done++
			}
		}
		if done != acknowledged {
			t.Errorf("round %d: %d of %d acknowledged actions are in the journal", round, done, acknowledged)
		}
		if !strings.Contains(p.Must("bailey history --since 1h --json --kind verdict"), marker) {
			t.Errorf("round %d: the record has lost what was refused long before the power cut", round)
		}
		p.protects(fmt.Sprintf("after power cut %d", round+1))
	}
}
