package rehearsal

import (
	"fmt"
	"slices"
	"time"
)

// logShown is how much of the release's output a report has.
const logShown = 4 << 10

// judge ends the release and says whether it passes.
func (r *rehearsal) judge(bad *failure) {
	stats := r.trial.Stats()
	r.trial.Stop()
	rep := &r.report
	rep.CPU, rep.Memory, rep.MemoryLimit = stats.CPU, stats.Working, int64(r.trial.Grants.Limits.Memory)
	rep.Log = r.trial.Log(logShown)
	r.compare()
	if bad != nil {
		rep.Reasons = append(rep.Reasons, bad.reason)
	}
	r.judgeAnswers()
	if n, last := r.peer.conn.Faults(); n > 0 && bad == nil {
		r.fail("it broke the protocol %d times, the last time: %v", n, last)
	}
	if stats.OOMKills > 0 && bad == nil {
		r.fail("it was out of memory: the limit is %v", r.trial.Grants.Limits.Memory)
	} else if rep.MemoryLimit > 0 && rep.Memory >= rep.MemoryLimit/10*9 {
		r.fail("it needs %d MiB of memory, its limit is %v", rep.Memory>>20, r.trial.Grants.Limits.Memory)
	}
	if n := rep.Answered; n > 0 && stats.CPU/time.Duration(n) > r.cfg.Limits.Budget {
		r.fail("it needs %v of a processor for a question, %v are allowed", (stats.CPU / time.Duration(n)).Round(time.Millisecond), r.cfg.Limits.Budget)
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

// judgeAnswers holds its denies against the limits. One that may not deny harms nobody by what it would deny.
func (r *rehearsal) judgeAnswers() {
	g, d, l := r.trial.Grants, &r.report.NewDeny, r.cfg.Limits
	if !g.Deny {
		return
	}
	files := d.Files
	if d.Critical > 0 && !g.DenyCritical {
		files -= d.Critical
		r.fail("it denies %d critical files, e.g. %s", d.Critical, example(d, func(e Difference) bool { return e.Critical }))
	}
	if files > l.Files {
		r.fail("it denies %d files that were not denied before, more than %d, e.g. %s", files, l.Files, example(d, func(e Difference) bool { return !e.Critical }))
	}
	if d.Packaged > l.PackageFiles {
		r.fail("it denies %d files of packages that were not denied before, more than %d, e.g. %s", d.Packaged, l.PackageFiles, example(d, func(e Difference) bool { return e.Packaged && !e.Critical }))
	}
}

func example(d *Differences, fits func(Difference) bool) string {
	if i := slices.IndexFunc(d.Examples, fits); i >= 0 {
		return d.Examples[i].File
	}
	return "one that is not among the examples"
}

// compare counts its answers and finds those that are not what the installed release's were.
func (r *rehearsal) compare() {
	rep := &r.report
	var denies, allows tally
	var took []time.Duration
	for _, a := range r.peer.answers() {
		rep.Answered++
		took = append(took, a.took)
		packaged := false
		if r.cfg.Owned != nil && (a.deny || a.q.before == deny) {
			packaged, _ = r.cfg.Owned(&a.q.file)
		}
		if a.deny {
			rep.Denied++
		}
		switch {
		case a.deny && a.q.before != deny:
			denies.add(a.q, packaged)
		case !a.deny && a.q.before == deny:
			allows.add(a.q, packaged)
		}
	}
	rep.NewDeny, rep.NewAllow = denies.Differences, allows.Differences
	if len(took) > 0 {
		slices.Sort(took)
		rep.Median, rep.P99, rep.Slowest = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	}
}
