package incident

import (
	"testing"
	"time"
)

// Wazuh's remote upgrade.
//
// Date: 2021-08 to 2023-09.
// Source: github.com/wazuh/wazuh/issues/9449, /11257, /19246, /20898.
// Shipped: code, by an upgrade that left a mix of old and new where it was interrupted, and whose way back set owners and rights wrong.
// Must: G5 G6. Agent and keeper are killed in the middle of each state that lasts; each time the old release is in force, or the new one, and the
// update goes on where it was. (Power cuts at each write are those of update/client, and of test/vm.)
func TestC12InterruptedUpdate(t *testing.T) {
	t.Parallel()
	o := newOffering(t, nil, "c12-01a", "c12-01b")
	const name = "Wazuh remote upgrade, 2021–2023"
	o.deliver(delivery{ID: "C12-01a", Name: name, Must: "G5 G6", Dies: true, Stops: []string{""},
		Did: "is good; agent and keeper are killed in its rehearsal and while it is watched"}, func(a *arrival) {
		a.installs()
		e := a.code(nil)
		a.during(func() { a.cut(e, "rehearse", "watch") })
		a.foundOf(e)
		if s := a.Stream(e.stream); s.GetUpdate().GetState() != "committed" {
			a.errorf("it is %s: %s", s.GetUpdate().GetState(), s.GetUpdate().GetReason())
		}
		a.row.way.why = "killed twice, it went on where it was and is in force"
		a.answersAgain()
	})
	o.deliver(delivery{ID: "C12-01b", Name: name, Must: "G5 G6", Dies: true, Long: true, Stops: beforehand,
		Did: "has a silent worker; agent and keeper are killed in its rehearsal"}, func(a *arrival) {
		a.installs()
		e := a.code(map[string]string{"worker": "dies", "heartbeat": "true"})
		a.during(func() { a.cut(e, "rehearse") })
		a.foundOf(e)
		a.isStopped()
	})
}

// cut kills agent and keeper in each of some states of a release, starts them again, and waits for its end.
func (a *arrival) cut(e ending, states ...string) {
	a.t.Helper()
	old := a.Product(a.name).GetRelease()
	for _, state := range states {
		s := a.Reaches(e.stream, e.version, time.Minute, state)
		a.Kill()
		a.again()
		a.Running(a.name)
		if now := a.Product(a.name).GetRelease(); now != old && now != s.GetUpdate().GetRelease() {
			a.errorf("after a cut in %s there is %s in force, neither %s nor %s", state, now, old, s.GetUpdate().GetRelease())
		}
	}
	e.after(nil)
}
