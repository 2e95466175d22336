package incident

import (
	"testing"

	"bailey/update/release"
)

// CrowdStrike Falcon on Debian.
//
// Date: 2024-04.
// Source: stackdiary.com/crowdstrike-took-down-debian-and-rocky-linux-a-few-months-ago-and-no-one-noticed; news.itsfoss.com/crowdstrike-windows-linux.
// Shipped: code, on a Friday evening, to a combination of system and configuration that the vendor had not tried. No server came up again.
// Must: G1 G6 G13. What a release says that it needs is checked before anything of it is fetched; the machine stays at what it has, and says why.
func TestC02UntestedPlatform(t *testing.T) {
	t.Parallel()
	o := newOffering(t, nil, "c2-01a", "c2-01b", "c2-01c", "c2-05")
	const name = "CrowdStrike Falcon on Debian, 2024"
	for _, c := range []struct {
		delivery
		edit func(*release.Description)
		why  string
	}{
		{delivery{ID: "C2-01a", Name: name, Must: "G1 G6 G13", Did: "needs a platform that this machine has not"}, needs(t, release.RequiresPlatform, ">=99"), "it needs Bailey >=99"},
		{delivery{ID: "C2-01b", Name: name, Must: "G1 G6 G13", Did: "is for another kind of machine"},
			func(d *release.Description) { d.Platforms = []string{"linux/s390x"} }, "it is not for linux/"},
		{delivery{ID: "C2-01c", Name: name, Must: "G1 G6 G13", Did: "needs content that is not installed"}, needs(t, release.RequiresContent, ">=2027"), "it needs the content of c2-01c"},
	} {
		c.Stops = []string{held}
		o.deliver(c.delivery, func(a *arrival) {
			a.installs()
			e := a.code(map[string]string{"fault": "panic", "at": "load"}, c.edit)
			a.during(func() { a.staysIn(e, held, c.why) })
			a.isStopped()
		})
	}
	o.deliver(delivery{ID: "C2-05", Name: "Falco kernel module, 2023", Must: "G1 G4", Long: true, Stops: []string{""},
		Did: "brings a kernel module and asks for it to be loaded, and loads BPF programs"}, func(a *arrival) {
		a.installs()
		sp := a.engine("2.0.0", map[string]string{"fault": "seize", "at": inForce})
		sp.Files["sensor.ko"] = "\x7fELF a module"
		a.vendor.Publish(a.name+"/code", "2.0.0", a.Folder(sp))
		a.comesInto(a.ending("code", "2.0.0"), "it is contained: each attempt fails, as in the table above")
		a.everyAttemptFailed("init_module", "finit_module", "delete_module", "bpf_map", "bpf_program", "perf", "kexec")
	})
}

// needs has a release require something.
func needs(t *testing.T, what, constraint string) func(*release.Description) {
	t.Helper()
	c, err := release.ParseConstraint(constraint)
	if err != nil {
		t.Fatal(err)
	}
	return func(d *release.Description) { d.Requires = map[string]release.Constraint{what: c} }
}

// comesInto measures until a release has ended one way or the other: stopped where it may be, or in force for good, which is no harm for the reason why.
func (a *arrival) comesInto(e ending, why string) {
	a.t.Helper()
	a.during(func() { e.after(nil) })
	a.foundOf(e)
	if a.row.way.stopped != "" {
		a.isStopped()
		return
	}
	if s := a.Stream(e.stream); s.GetUpdate().GetState() != "committed" {
		a.errorf("it is %s: %s", s.GetUpdate().GetState(), s.GetUpdate().GetReason())
	}
	a.row.way.why = why
	a.answersAgain()
}
