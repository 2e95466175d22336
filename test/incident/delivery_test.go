package incident

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	controlv1 "bailey/api/control/v1"
	productv1 "bailey/api/product/v1"
	"bailey/test/rig"
	"bailey/update/release"
)

// delivery is one replay whose release comes by the way of updates: offered by a signed repository, fetched, staged, rehearsed, put in force and
// watched by an agent that nobody tells anything.
type delivery struct {
	ID   string // of the incident, with its variant
	Name string // what broke, and when
	Did  string // what the release does here
	Must string // the guarantees that it is about
	Long bool   // `make incidents` runs it

	Stops   []string // the states in which it may be stopped, of those that the client has; none: it may come into force
	Refuses bool     // it may deny files for a while
	Dies    bool     // the agent itself is ended meanwhile
}

// held is the state of a release that is offered and not taken: the client has no record of it.
const held = "offer"

// beforehand is where a release that does harm at once is stopped: before it has a say.
var beforehand = []string{"rehearse", "shadow"}

// way is what became of a release.
type way struct {
	stopped         string // the state in which it was; empty: it came into force
	why             string
	back            time.Duration // from the first sign of harm until the release before was in force again
	asked, answered int           // questions to the product meanwhile
	denied          map[string]bool
}

// share is how many of the questions meanwhile were answered in time.
func (w *way) share() string {
	if w.asked == w.answered {
		return fmt.Sprintf("all %d", w.asked)
	}
	return fmt.Sprintf("%d of %d", w.answered, w.asked)
}

// where is the state in which it was stopped, and how soon the release before was back.
func (w *way) where() string {
	switch {
	case w.stopped == "":
		return "nowhere"
	case w.back > 0:
		return fmt.Sprintf("%s; back in %s", w.stopped, ms(w.back))
	}
	return w.stopped
}

// watched is how long a release is watched in these replays, unless it says otherwise.
const watched = 3 * time.Second

// offering is a scene whose agent follows a vendor of its own.
type offering struct {
	*scene
	vendor *rig.Vendor
}

// newOffering starts an agent that follows code and content of products; prepare is as for newSceneWith, and may be nil.
func newOffering(t *testing.T, prepare func(*scene) string, products ...string) *offering {
	t.Helper()
	return newShadowing(t, 0, prepare, products...)
}

// newShadowing is newOffering with a time that a release runs beside the installed one. With none of it that is only what it does until it is
// ready: a busy machine makes a good release miss questions, and most replays are of something else.
func newShadowing(t *testing.T, shadow time.Duration, prepare func(*scene) string, products ...string) *offering {
	t.Helper()
	o := &offering{}
	o.scene = newSceneWith(t, func(s *scene) string {
		o.vendor = s.Vendor(products...)
		var streams []string
		for _, p := range products {
			streams = append(streams, p+"/code", p+"/content")
		}
		config := o.vendor.Config(fmt.Sprintf("shadow = %q\nwatch = %q", shadow, watched), streams...)
		if prepare != nil {
			config += prepare(s)
		}
		return config
	})
	return o
}

// arrival is one delivery being played.
type arrival struct {
	*replay
	vendor *rig.Vendor
	stops  []string
	before *controlv1.Product // what was installed when measuring began
}

// deliver plays one delivery, judges it and notes the row.
func (o *offering) deliver(d delivery, play func(*arrival)) {
	o.t.Helper()
	st := story{Name: d.Name, Did: d.Did, Must: d.Must, Long: d.Long, Refuses: d.Refuses, Dies: d.Dies}
	st.ID = d.ID
	o.replay(st, func(r *replay) {
		r.row.way = &way{denied: map[string]bool{}}
		play(&arrival{replay: r, vendor: o.vendor, stops: d.Stops})
	})
}

// engine is the product that the release is one of, with good content, and with processor time enough for the canaries.
func (a *arrival) engine(version string, settings map[string]string) rig.Spec {
	s := a.spec(settings)
	s.Version, s.Events, s.Limits, s.Files = version, "exec", "cpu = 1.0\n", map[string]string{"content.txt": goodContent}
	return s
}

// installs installs the good release that is there when the other one comes.
func (a *arrival) installs() {
	a.t.Helper()
	a.plays(a.engine("1.0.0", nil))
}

// code offers the product with other settings, as version 2.0.0, and returns what waits for its end.
func (a *arrival) code(settings map[string]string, edit ...func(*release.Description)) ending {
	a.t.Helper()
	a.vendor.Publish(a.name+"/code", "2.0.0", a.Folder(a.engine("2.0.0", settings)), edit...)
	return a.ending("code", "2.0.0")
}

// inForce is a time after its start at which a release is in force that has no time to run beside another: what it reports before nobody hears.
const inForce = "2s"

// brieflyWatched is for a good release that comes into force only to show that it does.
func brieflyWatched(d *release.Description) { d.Health = &release.Health{WindowS: 1} }

// content offers content as a version and returns what waits for its end.
func (a *arrival) content(version, text string, edit ...func(*release.Description)) ending {
	a.t.Helper()
	a.vendor.Content(a.name, version, text, edit...)
	return a.ending("content", version)
}

// ending waits for the end of one release.
type ending struct {
	a               *arrival
	stream, version string
}

func (a *arrival) ending(kind, version string) ending { return ending{a, a.name + "/" + kind, version} }

// after has the agent look, does something again and again until the release has ended, and returns its stream. do may be nil.
func (e ending) after(do func()) *controlv1.UpdateStream {
	e.a.t.Helper()
	e.a.Must("update", "check")
	return e.meanwhile(do)
}

// meanwhile is after for an agent that looks by itself.
func (e ending) meanwhile(do func()) (s *controlv1.UpdateStream) {
	e.a.t.Helper()
	e.a.until(e.stream+" "+e.version+" has ended", 90*time.Second, func() error {
		if do != nil {
			do()
		}
		s = e.a.Stream(e.stream)
		u := s.GetUpdate()
		if u.GetVersion() == e.version && slices.Contains([]string{"refused", "rolled_back", "superseded", "committed"}, u.GetState()) {
			return nil
		}
		return fmt.Errorf("%s is %s: %s; %s %s", u.GetVersion(), u.GetState(), u.GetReason(), s.GetWaiting(), s.GetProblem())
	})
	return s
}

// stopsAlone is stopsWhile for a release that needs nobody but the canaries.
func (a *arrival) stopsAlone(e ending) { a.stopsWhile(e, nil) }

// stopsWhile waits until the release has ended, doing something meanwhile, and holds against the invariant what it found: the release is
// stopped where it may be, and what was installed goes on.
func (a *arrival) stopsWhile(e ending, do func()) {
	a.t.Helper()
	a.during(func() { e.after(do) })
	a.foundOf(e)
	a.isStopped()
}

// isStopped checks that the release was stopped where it may be.
func (a *arrival) isStopped() {
	a.t.Helper()
	if w := a.row.way; !slices.Contains(a.stops, w.stopped) {
		a.errorf("it was stopped in %q (%s), and may be in %v", w.stopped, w.why, a.stops)
	}
	a.goesOn()
}

// during measures while f runs, and counts what the product was asked and what it denied.
func (a *arrival) during(f func()) {
	a.t.Helper()
	a.before = a.Product(a.name)
	tap := a.verdicts
	seen := len(tap.All())
	a.watch(f)
	events := tap.All()[seen:]
	if tap != a.verdicts { // of another agent
		events = append(events, a.verdicts.All()...)
	}
	for _, e := range events {
		a.countVerdict(a.row.way, e.GetVerdict())
	}
}

// staysIn waits until a release is where it does not go on, with a reason that has words in it: in a state, or held back before it has one.
func (a *arrival) staysIn(e ending, state, words string) {
	a.t.Helper()
	a.Must("update", "check")
	a.until(e.stream+" stays in "+state, 30*time.Second, func() error {
		s := a.Stream(e.stream)
		now, why := s.GetUpdate().GetState(), s.GetUpdate().GetReason()
		if s.GetUpdate().GetVersion() != e.version {
			now, why = held, s.GetWaiting()
		}
		if now != state || !strings.Contains(why, words) {
			return fmt.Errorf("%s: %s", now, why)
		}
		a.row.way.stopped, a.row.way.why = now, why
		return nil
	})
}

func (a *arrival) countVerdict(w *way, v *productv1.Verdict) {
	for _, answer := range v.GetAnswers() {
		if answer.GetProduct() != a.name {
			continue
		}
		w.asked++
		switch answer.GetOutcome() {
		case "answered", "overridden", "unneeded":
			w.answered++
		}
	}
	if !v.GetAllow() {
		w.denied[v.GetFile().GetPath()] = true
	}
}

// foundOf reads where a release was stopped, and why, from the moves of its stream.
func (a *arrival) foundOf(e ending) {
	a.t.Helper()
	w := a.row.way
	defer func() { w.why = strings.NewReplacer(a.Dir, "", a.Built, "").Replace(w.why) }() // nobody's business
	var harm int64
	for _, m := range a.Moves(e.stream) {
		if m.GetVersion() != e.version {
			continue
		}
		switch m.GetTo() {
		case "refused", "superseded":
			w.stopped, w.why = m.GetFrom(), m.GetReason()
		case "roll_back":
			w.stopped, w.why, harm = m.GetFrom(), m.GetReason(), m.GetTime()
		case "rolled_back":
			w.back = time.Duration(m.GetTime() - harm)
		}
	}
}

// goesOn checks that the release before is in force; that it was not touched, if the other one never had a say; and that it answers.
func (a *arrival) goesOn() {
	a.t.Helper()
	w := a.row.way
	a.Running(a.name)
	after := a.Product(a.name)
	if after.GetRelease() != a.before.GetRelease() {
		a.errorf("in force is %s, before it was %s", after.GetRelease(), a.before.GetRelease())
	}
	if w.stopped != "watch" && !a.row.Dies {
		a.untouched(after)
	}
	if w.back > rollBack {
		a.errorf("the release before was back after %s", w.back)
	}
	a.answersAgain()
}

// untouched checks that nothing of what came was felt by the installed release, or through it.
func (a *arrival) untouched(after *controlv1.Product) {
	a.t.Helper()
	w := a.row.way
	if after.GetPid() != a.before.GetPid() || after.GetRestarts() != a.before.GetRestarts() {
		a.errorf("the installed release was started again: %v, before %v", after, a.before)
	}
	if missed := w.asked - w.answered; w.asked == 0 || uint64(missed) > a.allowedMisses(uint64(w.asked)) {
		a.errorf("the installed release answered %d of %d questions meanwhile", w.answered, w.asked)
	}
	if len(w.denied) > 0 {
		a.errorf("%d files were denied", len(w.denied))
	}
}

// remembers waits until the recorder has something on the disk: what is there is what a rehearsal knows.
func (a *arrival) remembers(path string) {
	a.t.Helper()
	a.until(path+" is recorded", 10*time.Second, func() error {
		if out := a.Must("history", "--state", a.State, "--kind", "verdict"); !strings.Contains(out, path) {
			return fmt.Errorf("not among %d lines", strings.Count(out, "\n"))
		}
		return nil
	})
}

// deliveryTable is the part of docs/incidents.md about updates.
func deliveryTable(all []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
## Through the update path

The incidents whose harm came with an update, by the way of updates: a good release is installed, and a repository that is made and signed by
[update/publish](../update/publish/doc.go) offers the other one over HTTP. An agent that follows it does everything by itself; a release is watched for %v here, unless it asks for more, and "after a while" is after its rehearsal instead of an hour. *Stopped in* is the state of [update/client](../update/client/state.go) in
which it was, and for one that was in force how soon the release before was back; *offer* is one that was never fetched. *Answered* is how many of the
questions that the product was asked meanwhile, from the offer to the end, got its answer in time, from the installed release or the new one. *Denied* counts files.

A replay passes when the release was stopped where its file says it may be, the release before is in force and answers, and, if the other one never
had a say, was not touched, missed nothing and denied nothing. What the machine felt is judged as above.

| incident | what broke | what the release does | stopped in | because | answered | longest exec | longest open | denied | passed |
|---|---|---|---|---|--:|--:|--:|--:|---|
`, watched)
	for _, r := range all {
		w := r.way
		if w == nil {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s (%s) | %s | %d | %s |\n", r.marked(), r.Name, r.Did, w.where(), cell(w.why), w.share(),
			ms(r.felt.exec.longest()), ms(r.felt.control.longest()), ms(r.felt.open.longest()), len(w.denied), r.verdict())
	}
	return b.String()
}

// cell is what of a reason fits into a table.
func cell(why string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "`", "'").Replace(cut(why, 160))
}
