package incident

import (
	"strings"
	"testing"
	"time"

	"bailey/update/release"
)

// later is when the fault of a release shows that passes its rehearsal: after its start in force, and within the time that it asks to be watched.
// An hour and a day would be no different but for that time.
const later = "8s"

// watchedLonger has a release watched until its fault has shown.
func watchedLonger(d *release.Description) { d.Health = &release.Health{WindowS: 20} }

// anywhere is for a fault that a rehearsal on a busy machine lasts long enough for.
func anywhere() []string { return append([]string{"watch"}, beforehand...) }

// TestUpdatesThatFailLater offers releases of incidents whose fault shows after a while. They pass their rehearsal, and go back as soon as
// they do harm.
func TestUpdatesThatFailLater(t *testing.T) {
	t.Parallel()
	o := newShadowing(t, time.Second, nil, "c1-01d", "c3-x3", "c6-06c", "c7-02h")
	o.deliver(delivery{ID: "C3-x3", Name: "another trigger: a storm of denies after a while", Must: "G1 G3 G6", Refuses: true, Stops: anywhere(),
		Did: "allows everything, and after a while denies everything"}, func(a *arrival) {
		a.installs()
		list := append(a.programs("storm", 40), a.files("storm", "f%d", "text", 40)...)
		a.stopsWhile(a.code(map[string]string{"deny_after": later}, watchedLonger), func() {
			for _, d := range list {
				if err := d.try(); err != nil && !refused(err) {
					a.errorf("%s: %v", d.path, err)
				}
			}
		})
		if n := len(a.row.way.denied); n > brakeFiles {
			a.errorf("%d files were denied before it was stopped, at most %d", n, brakeFiles)
		}
	})
	for _, c := range []struct {
		delivery
		settings map[string]string
	}{
		{delivery{ID: "C1-01d", Name: "CrowdStrike channel file 291, 2024", Must: "G1 G2 G4 G6", Long: true,
			Did: "panics a while after each start"}, map[string]string{"fault": "panic", "at": later}},
		{delivery{ID: "C6-06c", Name: "hung tasks in fanotify, 2023", Must: "G1 G2 G6", Long: true,
			Did: "answers for a while and then no more"}, map[string]string{"hang_after": later}},
		{delivery{ID: "C7-02h", Name: "Malwarebytes 1.0.3798, 2018", Must: "G1 G4 G6", Long: true,
			Did: "is sound for a while and then takes 200 MiB of memory a second"}, map[string]string{"fault": "memory", "at": later}},
	} {
		c.Stops = anywhere()
		o.deliver(c.delivery, func(a *arrival) {
			a.installs()
			a.stopsAlone(a.code(c.settings, watchedLonger))
		})
	}
}

// TestUpdatesThatFailAtTheNextStart offers releases that start well, once or twice.
func TestUpdatesThatFailAtTheNextStart(t *testing.T) {
	t.Parallel()
	o := newOffering(t, nil, "c1-x3", "c1-x4", "c7-01")
	o.deliver(delivery{ID: "C1-x3", Name: "another trigger: the next start", Must: "G1 G4 G6", Stops: beforehand,
		Did: "starts well once and panics at every later start, as after a boot"}, func(a *arrival) {
		a.installs()
		a.stopsAlone(a.code(map[string]string{"starts": "1"}))
	})
	o.deliver(delivery{ID: "C1-x4", Name: "another trigger: a start later on", Must: "G1 G4 G6", Dies: true, Long: true, Stops: anywhere(),
		Did: "starts well more often than a rehearsal has it start, and then never again; the agent is ended and started again while it is watched"}, func(a *arrival) {
		a.installs()
		e := a.code(map[string]string{"starts": "2"}, watchedLonger)
		a.during(func() {
			for range 2 {
				a.Reaches(e.stream, e.version, rollBack, "watch")
				a.Stop()
				a.again()
			}
			e.meanwhile(nil)
		})
		a.foundOf(e)
		a.isStopped()
	})
	o.deliver(delivery{ID: "C7-01", Name: "Trend Micro pattern 2.594.00, 2005", Must: "G1 G2 G4 G6", Long: true, Stops: anywhere(),
		Did: "spins on 64 threads after asking for real-time priority"}, func(a *arrival) {
		a.installs()
		a.stopsAlone(a.code(map[string]string{"fault": "spin", "at": "ready"}, watchedLonger))
	})
}

// TestUpdatesThatExhaust offers releases that take what there is of something as soon as they are in force. What a product may have is bounded,
// so they need not be stopped: whoever lives with its bound comes into force, and nobody else feels it.
func TestUpdatesThatExhaust(t *testing.T) {
	t.Parallel()
	const name = "Malwarebytes 1.0.3798, 2018"
	list := []struct {
		delivery
		fault, limits string
	}{
		{delivery{ID: "C7-02b", Name: name, Did: "opens 100,000 descriptors"}, "files", ""},
		{delivery{ID: "C7-02c", Name: name, Did: "starts 50,000 processes"}, "processes", ""},
		{delivery{ID: "C7-02d", Name: name, Did: "floods its log"}, "log", "log = \"1MiB\"\n"},
		{delivery{ID: "C7-02e", Name: name, Did: "maps a tebibyte and touches it"}, "map", "memory = \"64MiB\"\n"},
		{delivery{ID: "C7-02f", Name: name, Did: "fills its state directory"}, "state", "state = \"4MiB\"\n"},
		{delivery{ID: "C7-02g", Name: name, Did: "floods the agent with findings"}, "findings", ""},
	}
	var products []string
	for _, c := range list {
		products = append(products, strings.ToLower(c.ID))
	}
	o := newOffering(t, nil, products...)
	for _, c := range list {
		c.Must, c.Long, c.Stops = "G1 G4 G6", true, append(anywhere(), "")
		o.deliver(c.delivery, func(a *arrival) {
			sp := a.engine("1.0.0", nil)
			sp.Limits += c.limits
			a.plays(sp)
			sp = a.engine("2.0.0", map[string]string{"fault": c.fault, "at": inForce})
			sp.Limits += c.limits
			a.vendor.Publish(a.name+"/code", "2.0.0", a.Folder(sp), watchedLonger)
			a.comesInto(a.ending("code", "2.0.0"), "what it may have is bounded, as in the table above")
			if c.fault == "log" {
				logIsBounded(a.replay)
			}
		})
	}
}
