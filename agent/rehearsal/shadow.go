package rehearsal

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"bailey/agent/event"
	"bailey/agent/product/grant"
)

// Live is what a Shadow works with. Product, Beside and IsCritical have no default.
type Live struct {
	Product string      // the name of the live release in verdicts
	Beside  string      // and of the one beside it
	Grants  grant.Grant // of the one beside it
	Limits  Limits

	IsCritical func(*event.File) bool
	Owned      func(*event.File) (owned, known bool) // whether a package owns a file; may be nil
}

// Shadow compares the answers of a release that runs beside the live one with the live one's, about what this machine does now. Safe for concurrent use.
type Shadow struct {
	cfg Live

	mu             sync.Mutex
	report         Comparison
	took           []time.Duration // of the newest answers
	next           int             // in took
	denies, allows tally
}

// Comparison is what came of it so far.
type Comparison struct {
	Began    time.Time
	Asked    uint64      // questions that the one beside was asked
	Compared uint64      // that both answered
	Missed   uint64      // that it did not answer in time
	Unseen   uint64      // that the comparison did not see
	NewDeny  Differences // it denies what the live one allowed
	NewAllow Differences
	Median   time.Duration
	P99      time.Duration
}

// shadowTook is of how many answers the times are known, and shadowFiles how many different files are counted.
const (
	shadowTook  = 1024
	shadowFiles = 4096
)

// What a release that is compared or watched may miss: a machine that is busy makes a good one miss one now and then.
const (
	missesAllowed = 2
	missesPercent = 1
)

// Missed says that a release missed too many of the questions that it was asked; empty if it did not.
func Missed(n, of uint64) string {
	if n > missesAllowed && n*100 > of*missesPercent {
		return fmt.Sprintf("it missed %d of %d questions", n, of)
	}
	return ""
}

// NewShadow begins a comparison.
func NewShadow(cfg Live) *Shadow {
	cfg.Limits = cfg.Limits.withDefaults()
	return &Shadow{cfg: cfg, report: Comparison{Began: time.Now()}}
}

// Take takes the outcome of one question, and how many were lost before it.
func (s *Shadow) Take(e *event.Event, lost uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.Unseen += lost
	v := e.Verdict
	if v == nil {
		return
	}
	beside := slices.IndexFunc(v.Answers, func(a event.Answer) bool { return a.Product == s.cfg.Beside })
	if beside < 0 {
		return
	}
	a := &v.Answers[beside]
	s.report.Asked++
	if !answered(a) {
		if a.Outcome == event.Missed || a.Outcome == event.Unsent {
			s.report.Missed++
		}
		return
	}
	s.timed(time.Duration(a.Latency))
	live := slices.IndexFunc(v.Answers, func(a event.Answer) bool { return a.Product == s.cfg.Product })
	if live < 0 || !answered(&v.Answers[live]) {
		return
	}
	s.report.Compared++
	before, now := said(&v.Answers[live]), said(a)
	if before == now || len(s.denies.seen)+len(s.allows.seen) >= shadowFiles {
		return
	}
	q := &question{kind: v.Asked, process: e.Process, file: v.File, before: before, critical: s.cfg.IsCritical(&v.File)}
	differ(q, now == deny, &s.denies, &s.allows, s.cfg.Owned)
}

func answered(a *event.Answer) bool {
	return a.Outcome == event.Answered || a.Outcome == event.Overridden
}

// timed remembers how long an answer took. Caller holds mu.
func (s *Shadow) timed(d time.Duration) {
	if len(s.took) < shadowTook {
		s.took = append(s.took, d)
		return
	}
	s.took[s.next] = d
	s.next = (s.next + 1) % shadowTook
}

// Harm says why the release must not get authority; empty if nothing speaks against it so far.
func (s *Shadow) Harm() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.cfg.Limits.judge(&s.cfg.Grants, &s.denies.Differences); len(r) > 0 {
		return r[0]
	}
	return Missed(s.report.Missed, s.report.Asked)
}

// Report returns what came of it so far.
func (s *Shadow) Report() Comparison {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.report
	r.NewDeny, r.NewAllow = s.denies.copy(), s.allows.copy()
	if took := slices.Sorted(slices.Values(s.took)); len(took) > 0 {
		r.Median, r.P99 = took[len(took)/2], took[len(took)*99/100]
	}
	return r
}

// copy is the tally as it is now.
func (t *tally) copy() Differences {
	d := t.Differences
	d.Examples = slices.Clone(d.Examples)
	return d
}
