package incident

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"bailey/update/release"
)

// TestUpdatesThatFailAtOnce offers the releases of incidents whose fault shows as soon as the release is asked what this machine asks. Each dies
// before it has a say. What happened is told by the incident's own file.
func TestUpdatesThatFailAtOnce(t *testing.T) {
	t.Parallel()
	list := []struct {
		delivery
		content  string
		settings map[string]string // of a release of code
		urgent   bool
	}{
		{delivery: delivery{ID: "C1-01a", Name: "CrowdStrike channel file 291, 2024", Must: "G1 G2 G4 G6",
			Did: "content makes its engine panic at every load"}, content: badContent + "check load\n"},
		{delivery: delivery{ID: "C1-01b", Name: "CrowdStrike channel file 291, 2024", Must: "G1 G2 G4 G6",
			Did: "content loads cleanly and makes its engine panic at the first match"}, content: badContent},
		{delivery: delivery{ID: "C1-01c", Name: "CrowdStrike channel file 291, 2024", Must: "G1 G2 G4 G6",
			Did: "code dies of SIGSEGV at its first question"}, settings: map[string]string{"fault": "segv", "at": "question"}},
		{delivery: delivery{ID: "C1-05", Name: "McAfee DAT 6807, 2012", Must: "G1 G2 G6 G8",
			Did: "its verdict worker ends without a word while its heart-beat goes on"}, settings: map[string]string{"worker": "dies", "heartbeat": "true"}},
		{delivery: delivery{ID: "C1-x1", Name: "another trigger: state that no start survives", Must: "G1 G4 G6",
			Did: "writes a state file that makes it panic at every later start"}, settings: map[string]string{"state": "strict", "fault": "corrupt", "at": "ready"}},
		{delivery: delivery{ID: "C2-x1", Name: "another trigger: frames that nobody expects", Must: "G1 G4 G6",
			Did: "sends malformed frames"}, settings: map[string]string{"fault": "malformed", "at": "ready"}},
		{delivery: delivery{ID: "C3-01", Name: "McAfee DAT 5958, 2010", Must: "G1 G3 G6",
			Did: "denies the loader, the C library and the shell"}, content: "prefix /bin/\nprefix /lib\nprefix /usr/bin/\nprefix /usr/lib\n"},
		{delivery: delivery{ID: "C3-09", Name: "Avira ProActiv, 2012", Must: "G1 G3 G6",
			Did: "denies 60 of 100 execs"}, settings: map[string]string{"deny_share": "60"}},
		{delivery: delivery{ID: "C3-10", Name: "Malwarebytes definitions, 2013", Must: "G1 G3 G6",
			Did: "one byte turned a pattern into the empty one before it was signed"}, content: goodContent + "pattern \n"},
		{delivery: delivery{ID: "C3-x1", Name: "another trigger: a pattern that is in every program", Must: "G1 G3 G6", Long: true,
			Did: "denies what contains the four bytes that every program starts with"}, content: goodContent + "pattern \x7fELF\n"},
		{delivery: delivery{ID: "C4-07a", Name: "Google Safe Browsing, 2009", Must: "G3 G6 G13",
			Did: "has the path \"/\" on its list"}, content: goodContent + "prefix /\n"},
		{delivery: delivery{ID: "C4-07c", Name: "Google Safe Browsing, 2009", Must: "G3 G6 G13", Long: true,
			Did: "has the empty path on its list"}, content: goodContent + "prefix \n"},
		{delivery: delivery{ID: "C6-06a", Name: "hung tasks in fanotify, 2023", Must: "G1 G2 G6", Long: true,
			Did: "takes every question and answers none"}, settings: map[string]string{"hang": "true"}},
		{delivery: delivery{ID: "C6-07c", Name: "Apple OCSP and trustd, 2020", Must: "G2 G6 G11", Long: true,
			Did: "asks a service that accepts and says nothing"}, settings: map[string]string{"cloud": "hang"}},
		{delivery: delivery{ID: "C6-x1", Name: "another trigger: stopped by a signal", Must: "G1 G2 G6", Long: true,
			Did: "stops itself with SIGSTOP at a question"}, settings: map[string]string{"fault": "stop", "at": "question"}},
		{delivery: delivery{ID: "C7-x1", Name: "another trigger: the loop is in the answer", Must: "G1 G2 G4 G6", Long: true,
			Did: "spins for ever in each answer, on every worker"}, settings: map[string]string{"fault": "spin", "at": "question"}},
		{delivery: delivery{ID: "C7-02a", Name: "Malwarebytes 1.0.3798, 2018", Must: "G1 G4 G6",
			Did: "takes 200 MiB of memory a second"}, settings: map[string]string{"fault": "memory", "at": "ready"}},
		{delivery: delivery{ID: "C9-x1", Name: "allow lists with empty rules, 2019–2024", Must: "G1 G3 G6 G8",
			Did: "allows what its rules name, and they name nothing"}, content: "default deny\n"},
		{delivery: delivery{ID: "C10-01a", Name: "Check Point endpoint certificate, 2021", Must: "G1 G6 G8",
			Did: "its clock says 2038, its licence is over, and it does not start"}, settings: map[string]string{"clock": "2038", "licence_until": "2027-01-01"}},
		{delivery: delivery{ID: "C12-03", Name: "unstaged push as an amplifier, 2017–2025", Must: "G6 G7",
			Did: "is channel file 291 and marked urgent, which shortens nothing here"}, content: badContent, urgent: true},
	}
	var products []string
	for _, c := range list {
		products = append(products, strings.ToLower(c.ID))
	}
	o := newOffering(t, nil, products...)
	for _, c := range list {
		c.Stops = beforehand
		o.deliver(c.delivery, func(a *arrival) {
			a.installs()
			if c.settings != nil {
				a.stopsAlone(a.code(c.settings))
				return
			}
			a.stopsAlone(a.content("2026.11.1", c.content, func(d *release.Description) {
				if c.urgent {
					d.Urgency = release.Urgent
				}
			}))
		})
	}
}

// TestUpdatesOfWhatIsThere offers releases that go for files of this machine, which it has used before.
func TestUpdatesOfWhatIsThere(t *testing.T) {
	t.Parallel()
	o := newOffering(t, networkTree, "c4-01a", "c4-07b", "c5-01", "c8-01")
	o.deliver(delivery{ID: "C4-01a", Name: "Microsoft Defender ASR rule, 2023", Must: "G6 G9", Stops: beforehand,
		Did: "denies 500 shortcuts of users, some of which were opened lately"}, func(a *arrival) {
		a.installs()
		a.opened(a.files("home", "u%d.desktop", "[Desktop Entry]\nType=Application\n", 500)[:50])
		a.stopsAlone(a.content("2026.11.1", goodContent+"pattern [Desktop Entry]\n"))
	})
	o.deliver(delivery{ID: "C4-07b", Name: "Google Safe Browsing, 2009", Must: "G3 G6 G13", Stops: beforehand,
		Did: "has the digest of the empty file on its list"}, func(a *arrival) {
		a.installs()
		a.opened(a.files("empty", "f%d", "", 60))
		a.stopsAlone(a.content("2026.11.1", goodContent+"sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"))
	})
	o.deliver(delivery{ID: "C5-01", Name: "Sophos Shh/Updater-B, 2012", Must: "G3 G4 G6 G8", Stops: beforehand,
		Did: "denies the agent's program, every product and itself; then the cure comes"}, func(a *arrival) {
		a.installs()
		a.stopsAlone(a.content("2026.11.1", fmt.Sprintf("prefix %s\nprefix %s\nprefix %s\n", filepath.Dir(a.Exe), a.State, a.Run)))
		a.isCured()
	})
	o.deliver(delivery{ID: "C8-01", Name: "Kaspersky web anti-virus, 2013", Must: "G3 G6 G8", Stops: beforehand,
		Did: "denies every program and file of the network"}, func(a *arrival) {
		a.installs()
		net := filepath.Join(a.Scratch, "net")
		a.opened([]denial{{path: filepath.Join(net, "sshd"), exec: true}, {path: filepath.Join(net, "resolv.conf")}})
		a.stopsAlone(a.content("2026.11.1", goodContent+"prefix "+net+"\n"))
	})
}

// isCured offers good content, which comes by the way that the bad one came.
func (a *arrival) isCured() {
	a.t.Helper()
	if s := a.content("2026.11.2", goodContent, brieflyWatched).after(nil); s.GetUpdate().GetState() != "committed" {
		a.errorf("the cure is %s: %s", s.GetUpdate().GetState(), s.GetUpdate().GetReason())
	}
}

// TestUpdatesAgainstTheWayOfUpdates offers content that refuses all that the agent, its command line and what they start execute or open, where
// all of it is on the watched filesystem. Whatever comes of it, the next release comes.
func TestUpdatesAgainstTheWayOfUpdates(t *testing.T) {
	t.Parallel()
	o := newOffering(t, platformOnScratch, "c5-04")
	o.deliver(delivery{ID: "C5-04", Name: "Fedora 20 selinux-policy, 2014", Must: "G3 G5 G6 G8", Stops: append(anywhere(), ""),
		Did: "denies whatever the agent and its command line execute or open; then the cure comes"}, func(a *arrival) {
		a.installs()
		a.comesInto(a.content("2026.11.1", "asker "+a.Exe+"\nprefix "+a.State+"\n", brieflyWatched), "what the agent does for itself nobody is asked about")
		a.Must("product", "restart", a.name)
		a.Running(a.name)
		a.isCured()
	})
}

// opened uses files, and waits until that is past.
func (a *arrival) opened(list []denial) {
	a.t.Helper()
	for _, d := range list {
		if err := d.try(); err != nil {
			a.errorf("%s: %v", d.path, err)
		}
	}
	a.remembers(list[len(list)-1].path)
}
