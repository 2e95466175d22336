package boot

import (
	"fmt"
	"strings"
	"time"
)

// milestones are when a boot came how far, from the kernel's start; 0: it has not.
type milestones struct{ local, bailey, basic, multi time.Duration }

// milestones waits until the boot is over.
func (p protected) milestones() milestones {
	p.t.Helper()
	p.eventually("the boot comes to its end", "systemctl -q is-active multi-user.target")
	out := p.Must("for u in local-fs.target bailey.service basic.target multi-user.target; do systemctl show -P ActiveEnterTimestampMonotonic $u; done")
	var m milestones
	for i, at := range []*time.Duration{&m.local, &m.bailey, &m.basic, &m.multi} {
		var us int64
		if _, err := fmt.Sscan(strings.Fields(out)[i], &us); err != nil {
			p.t.Fatalf("times %q: %v", out, err)
		}
		*at = time.Duration(us) * time.Microsecond
	}
	return m
}

// took is how long the boot went on after the point at which the service begins.
func (m milestones) took() time.Duration { return m.multi - m.local }

// brokenAgent is an agent that does not start.
type brokenAgent struct {
	what         string
	spoil, mend  string
	patience     time.Duration // how much longer the boot may take than with one that starts
	always, told bool          // also where there is little time; systemd was told that the keeper is up
}

// Whoever opens a pipe that nobody writes to waits for ever. All are started again when they are mended, without a boot.
var brokenAgents = []brokenAgent{
	{what: "the agent hangs", spoil: "rm -f /var/lib/bailey/brake.json && mkfifo /var/lib/bailey/brake.json",
		mend: "rm /var/lib/bailey/brake.json && kill -KILL $(pgrep -f '^bailey agent --kept')", patience: 15 * time.Second, always: true, told: true},
	{what: "the keeper hangs", spoil: "mv /etc/bailey/agent.toml /root/ && mkfifo /etc/bailey/agent.toml",
		mend: "rm /etc/bailey/agent.toml && mv /root/agent.toml /etc/bailey/ && kill -KILL $(pgrep -f '^/usr/bin/bailey agent')", patience: 40 * time.Second}, // TimeoutStartSec=30
	{what: "the program is no program", spoil: "mv /usr/bin/bailey /root/ && echo rubbish >/usr/bin/bailey && chmod 755 /usr/bin/bailey",
		mend: "mv /root/bailey /usr/bin/bailey", patience: 10 * time.Second},
	{what: "it exits", spoil: "cp /etc/bailey/agent.toml /root/ && echo rubbish >>/etc/bailey/agent.toml",
		mend: "mv /root/agent.toml /etc/bailey/", patience: 10 * time.Second},
}

// broken boots with agents that do not start: the machine comes up and goes down, programs run, and when the agent can start it does.
func (p protected) broken() {
	p.t.Helper()
	p.Reboot()
	p.protects("after a reboot")
	whole := p.early()
	for _, b := range brokenAgents {
		if !b.always && !long() {
			continue
		}
		p.Must(b.spoil)
		took := p.Down("systemctl reboot --no-block")
		if t := 30 * time.Second; took > t { // whoever has to be killed at a shutdown is after 90 s
			p.t.Errorf("before it was tried that %s, the way down took %v", b.what, took)
		}
		p.PowerOn()
		m := p.milestones()
		p.t.Logf("%s: %v after local-fs.target the boot is over; with one that starts %v", b.what, m.took(), whole.took())
		if m.took() > 2*whole.took()+b.patience {
			p.t.Errorf("%s: the boot is held up for %v, with one that starts it takes %v", b.what, m.took(), whole.took())
		}
		if out, code := p.Run(good + " && " + bad); code != 0 {
			p.t.Errorf("%s: programs do not run: %d %s", b.what, code, out)
		}
		if state := p.Must("systemctl show -P ActiveState bailey"); (state == "active\n") != b.told {
			p.t.Errorf("%s: the service is %s", b.what, state)
		}
		p.Must(b.mend)
		p.protects("when the agent can start again, after " + b.what)
	}
}

// early: it was up before the boot went on to what everybody's services wait for.
func (p protected) early() milestones {
	p.t.Helper()
	m := p.milestones()
	p.t.Logf("after the kernel's start: local-fs.target %v, bailey %v, basic.target %v, multi-user.target %v", m.local, m.bailey, m.basic, m.multi)
	if m.bailey == 0 || m.bailey > m.basic || m.local > m.bailey {
		p.t.Errorf("it is not up between local-fs.target and basic.target: %+v", m)
	}
	return m
}
