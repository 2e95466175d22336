package rehearsal

import (
	"fmt"
	"slices"
	"time"

	"bailey/agent/event"
	"bailey/agent/product/grant"
)

// logShown is how much of the release's output a report has.
const logShown = 4 << 10

// weigh takes down what the release has used. Whoever ends it weighs it before.
func (r *rehearsal) weigh() {
	stats := r.trial.Stats()
	rep := &r.report
	rep.CPU, rep.Memory, rep.MemoryLimit = stats.CPU, stats.Working, int64(r.trial.Grants.Limits.Memory)
	r.killed, r.weighed = stats.OOMKills > 0, true
}

// judge says whether the release passes, which has ended; bad is what ended it, if it did not pass then.
func (r *rehearsal) judge(bad *failure) {
	rep := &r.report
	if r.trial == nil { // it never came to run
		r.fail("%s", bad.reason)
		return
	}
	c := r.compare(true)
	c.tell(rep)
	if bad != nil {
		r.fail("%s", bad.reason)
	}
	if r.ownFault != nil {
		r.fail("%v", r.ownFault)
	}
	rep.Reasons = append(rep.Reasons, r.faults(&c)...)
	if n, last := r.peer.conn.Faults(); n > 0 && bad == nil {
		r.fail("it broke the protocol %d times, the last time: %v", n, last)
	}
	if r.killed && bad == nil {
		r.fail("it was out of memory: the limit is %v", r.trial.Grants.Limits.Memory)
	} else if rep.MemoryLimit > 0 && rep.Memory >= rep.MemoryLimit/10*9 {
		r.fail("it needs %d MiB of memory, its limit is %v", rep.Memory>>20, r.trial.Grants.Limits.Memory)
	}
	if n := rep.Answered; n > 0 && rep.CPU/time.Duration(n) > r.cfg.Limits.Budget {
		r.fail("it needs %v of a processor for a question, %v are allowed", (rep.CPU / time.Duration(n)).Round(time.Millisecond), r.cfg.Limits.Budget)
	}
	if _, kinds := r.peer.wants(); bad == nil {
		for _, k := range (r.cfg.Asked &^ kinds).List() {
			r.fail("it does not want to be asked about %s, which the installed release is", k)
		}
	}
	rep.Passed = len(rep.Reasons) == 0
}

func (r *rehearsal) fail(format string, args ...any) {
	r.report.Reasons = append(r.report.Reasons, fmt.Sprintf(format, args...))
}

// faults are what is wrong with its answers.
func (r *rehearsal) faults(c *comparison) (out []string) {
	if n := len(c.wrong); n > 0 {
		out = append(out, fmt.Sprintf("%d of its own tests fail, e.g. it %s", n, c.wrong[0]))
	}
	g, d := &r.trial.Grants, c.deny.Differences
	if d.Good > 0 && r.compared && g.Deny { // without an installed release it may be one that allows what it knows, and nothing else
		d.Files -= d.Good
		out = append(out, fmt.Sprintf("it denies %d files that are good beyond doubt, e.g. %s", d.Good, example(&d, func(e Difference) bool { return e.Source == fromGood.String() })))
	}
	return append(out, r.cfg.Limits.judge(g, &d)...)
}

// judge says why a release with those grants must not deny what it newly denies. One that may not deny harms nobody by what it would deny.
func (l Limits) judge(g *grant.Grant, d *Differences) (reasons []string) {
	if !g.Deny {
		return nil
	}
	fail := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	files := d.Files
	if d.Critical > 0 && !g.DenyCritical {
		files -= d.Critical
		fail("it denies %d critical files, e.g. %s", d.Critical, example(d, func(e Difference) bool { return e.Critical }))
	}
	if files > l.Files {
		fail("it denies %d files that were not denied before, more than %d, e.g. %s", files, l.Files, example(d, func(e Difference) bool { return !e.Critical }))
	}
	if d.Packaged > l.PackageFiles {
		fail("it denies %d files of packages that were not denied before, more than %d, e.g. %s", d.Packaged, l.PackageFiles, example(d, func(e Difference) bool { return e.Packaged && !e.Critical }))
	}
	return reasons
}

// hopeless reports whether it fails by what it answered, whatever the installed release says about the corpus.
func (r *rehearsal) hopeless() bool {
	c := r.compare(false)
	return len(r.faults(&c)) > 0
}

func example(d *Differences, fits func(Difference) bool) string {
	if i := slices.IndexFunc(d.Examples, fits); i >= 0 {
		return d.Examples[i].File
	}
	return "none" // of each kind there are examples
}

// comparison is its answers beside the installed release's.
type comparison struct {
	answered, denied int
	deny, allow      tally
	wrong            []string // own tests that fail, each the end of a sentence
	took             []time.Duration
}

// compare counts its answers and finds those that are not what the installed release's were, with the corpus or without.
func (r *rehearsal) compare(corpus bool) (c comparison) {
	for _, a := range r.peer.answers() {
		if a.q.from.common() && !corpus {
			continue
		}
		c.answered++
		c.took = append(c.took, a.took)
		if a.deny {
			c.denied++
		}
		if a.q.from == fromOwn {
			if a.deny != (a.q.want == deny) {
				c.wrong = append(c.wrong, fmt.Sprintf("%s %s, which it is to %s", does[a.deny], a.q.file.Path, a.q.want))
			}
			continue
		}
		owned := r.cfg.Owned
		if a.q.from == fromGood {
			owned = nil // it lies nowhere
		}
		differ(a.q, a.deny, &c.deny, &c.allow, owned)
	}
	return c
}

// differ counts the answer to q if it is not what it was. Owned may be nil.
func differ(q *question, denied bool, denies, allows *tally, owned func(*event.File) (owned, known bool)) {
	packaged := false
	if owned != nil && (denied || q.before == deny) {
		packaged, _ = owned(&q.file)
	}
	switch {
	case denied && q.before != deny:
		denies.add(q, packaged)
	case !denied && q.before == deny:
		allows.add(q, packaged)
	}
}

// does are the words for an answer.
var does = map[bool]string{true: "denies", false: "allows"}

// tell puts it into a report.
func (c *comparison) tell(rep *Report) {
	rep.Answered, rep.Denied, rep.NewDeny, rep.NewAllow = c.answered, c.denied, c.deny.Differences, c.allow.Differences
	if len(c.took) > 0 {
		slices.Sort(c.took)
		rep.Median, rep.P99, rep.Slowest = c.took[len(c.took)/2], c.took[len(c.took)*99/100], c.took[len(c.took)-1]
	}
}
