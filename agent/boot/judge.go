package boot

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Facts is what an agent finds when it starts.
type Facts struct {
	Boot     string            // the id of this boot; empty where the kernel does not say: then nothing is counted
	Releases map[string]string // what shall run: the release of each enabled product
	Platform string            // whose sensors would work: this agent and this kernel
	Limit    int               // unclean boots in a row after which there is safe mode, and so many more after which its sensors are off
	Forced   string            // why this boot is to be in safe mode; empty: it need not
	Now      time.Time
}

// Judgement is what follows when a boot begins.
type Judgement struct {
	Next    Record   // to be written when Suspect products have gone back
	Again   bool     // an agent has run in this boot before: nothing is new
	Unclean bool     // the boot before did not go well
	Suspect []string // products to put back to the release before, if they have one
}

// Judge says what the start of an agent means. It changes nothing: the caller first takes back what is suspect, which can be done twice,
// and then writes Next: after a power cut in between, what is left to take back is said once more.
func Judge(r Record, f Facts) Judgement {
	r = r.clone()
	if f.Boot == "" || r.Boot == f.Boot {
		return Judgement{Next: r, Again: true}
	}
	var changed []string
	if r.LastGood != nil { // else nobody knows what is new
		changed = Changed(r.LastGood, f.Releases)
	}
	good := r.Good && (r.Safe != "" || len(changed) == 0)
	j := Judgement{Unclean: r.Boot != "" && !r.Ended && !good}
	if good { // in safe mode the count stands still, and what comes on top of it must be in a row, too
		r.Unclean = min(r.Unclean, f.Limit)
	}
	if j.Unclean {
		r.Unclean++
		if r.Unclean == 1 && len(r.Suspects) == 0 {
			j.Suspect = changed
		}
	}
	if r.Trying != "" && !r.Ended {
		if r.Downs == nil {
			r.Downs = map[string]int{}
		}
		r.Downs[r.Trying]++
	}
	r.Trying = ""
	r.judgeSafe(f)
	r.Boot, r.Began, r.Good, r.Ended, r.Next = f.Boot, f.Now, false, false, false
	j.Next = r
	return j
}

// judgeSafe says whether the boot that begins is in safe mode.
func (r *Record) judgeSafe(f Facts) {
	r.Safe = ""
	if len(r.Suspects) > 0 {
		if !remedied(r.Suspects, f.Releases) {
			r.Safe = fmt.Sprintf("%d boots in a row did not end well, and nothing has changed since", r.Unclean)
		} else { // a remedy, on trial: the next unclean boot is enough
			r.Suspects, r.Unclean = nil, max(f.Limit-1, 0)
		}
	}
	if r.Safe == "" && r.Unclean >= f.Limit {
		r.Suspects = maps.Clone(f.Releases)
		r.Safe = fmt.Sprintf("%d boots in a row did not end well", r.Unclean)
	}
	r.judgeSensors(f)
	switch {
	case f.Forced != "":
		r.Safe = f.Forced
	case r.Next:
		r.Safe = "the operator wants it for this boot"
	}
}

// judgeSensors says whether the boot that begins, if so many boots ended badly that it is in safe mode, is without sensors: boots that go on to end
// badly without products are laid to them, until the agent or the kernel is another one.
func (r *Record) judgeSensors(f Facts) {
	if r.Safe == "" {
		r.Distrusted = ""
		return
	}
	if r.Distrusted != "" && r.Distrusted != f.Platform { // on trial, like any remedy
		r.Distrusted, r.Unclean = "", max(2*f.Limit-1, 0)
	}
	if r.Distrusted == "" && r.Unclean >= 2*f.Limit {
		r.Distrusted = f.Platform
	}
}

// Changed returns the products that are now at another release than before, or new.
func Changed(before, now map[string]string) []string {
	var out []string
	for name, release := range now {
		if before[name] != release {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// remedied reports whether one of the suspects does not run any more as it did.
func remedied(suspects, now map[string]string) bool {
	for name, release := range suspects {
		if now[name] != release {
			return true
		}
	}
	return false
}

// MarkGood takes note that the boot went well with these releases.
func (r *Record) MarkGood(releases map[string]string) {
	r.Good, r.Back = true, nil
	if r.Safe != "" {
		if len(releases) == 0 && r.Distrusted == "" { // all that there is was there
			r.Unclean = 0
		}
		return // nothing ran that could have done harm, so that nothing is proven
	}
	r.Unclean, r.LastGood = 0, maps.Clone(releases)
}
