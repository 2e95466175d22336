package hub

import (
	"fmt"

	"bailey/agent/event"
)

// Subscription is what a product asks to be told and asked.
type Subscription struct {
	Events          event.KindSet
	Questions       event.KindSet
	MuteExecutables []string // exact paths whose events are not wanted
	MutePaths       []string // prefixes of targets that are not wanted
	InvertPaths     bool     // only those targets are wanted
}

// maxMutes bounds each list of a subscription: every event is held against it.
const maxMutes = 1024

// questionKinds are the kinds that can be asked.
var questionKinds = event.KindsOf(event.Exec, event.Open)

// filter is an accepted subscription.
type filter struct {
	events, questions event.KindSet
	executables       map[string]struct{}
	paths             []string
	invert            bool
}

// wants reports whether the client is told of e.
func (f *filter) wants(e *event.Event) bool {
	if !f.events.Has(e.Kind) {
		return false
	}
	if len(f.executables) > 0 && e.Process != nil {
		if _, muted := f.executables[e.Process.Executable.Path]; muted {
			return false
		}
	}
	if len(f.paths) == 0 && !f.invert {
		return true
	}
	return f.wantsTarget(e)
}

// wantsTarget judges file events, and verdicts, by their target; the other kinds have none.
func (f *filter) wantsTarget(e *event.Event) bool {
	var hit bool
	switch {
	case e.File != nil && e.File.From != "":
		// Of a rename both ends count: wanted if either is.
		from, to := underAny(e.File.From, f.paths), underAny(e.File.File.Path, f.paths)
		if f.invert {
			return from || to
		}
		return !from || !to
	case e.File != nil:
		hit = underAny(e.File.File.Path, f.paths)
	case e.Verdict != nil:
		hit = underAny(e.Verdict.File.Path, f.paths)
	default:
		return true
	}
	return hit == f.invert
}

// Subscribe replaces the product's subscription. It returns the kinds that were accepted, and a reason for everything that
// was not. A product that decides anything also says by it that its rules may have changed: cached verdicts are dropped.
func (c *Client) Subscribe(s Subscription) (events, questions event.KindSet, refused []string) {
	h := c.hub
	h.order.Lock()
	defer h.order.Unlock()
	if c.closed.Load() {
		return 0, 0, []string{"the product is being stopped"}
	}
	m := c.member.Load()
	f := &filter{invert: s.InvertPaths}
	f.events, refused = granted(s.Events, m.See, "events", refused)
	f.questions, refused = granted(s.Questions, m.Decide, "questions", refused)
	f.questions, refused = answerable(f.questions, m, refused)
	f.executables, refused = muteSet(s.MuteExecutables, refused)
	f.paths, refused = mutePaths(s.MutePaths, refused)

	old := c.sub.Swap(f)
	h.rewrite(func(*book) {})
	cause := ""
	if (old.questions | f.questions) != 0 {
		cause = "subscription"
	}
	h.changed(cause)
	return f.events, f.questions, refused
}

func granted(asked, grant event.KindSet, what string, refused []string) (event.KindSet, []string) {
	for _, k := range (asked &^ grant).List() {
		refused = append(refused, fmt.Sprintf("%s of kind %s: not granted by the operator", what, k))
	}
	return asked & grant, refused
}

// answerable keeps the kinds that exist as questions and that the grants say enough about.
func answerable(ks event.KindSet, m *Member, refused []string) (event.KindSet, []string) {
	for _, k := range (ks &^ questionKinds).List() {
		refused = append(refused, fmt.Sprintf("questions of kind %s: there are none", k))
	}
	ks &= questionKinds
	if ks.Has(event.Open) && len(m.OpenScope) == 0 {
		refused = append(refused, "questions of kind open: the operator granted no scope")
		ks &^= event.KindsOf(event.Open)
	}
	return ks, refused
}

func muteSet(paths, refused []string) (map[string]struct{}, []string) {
	if len(paths) > maxMutes {
		refused = append(refused, fmt.Sprintf("mute_executables: %d paths, the most is %d; the rest is not muted", len(paths), maxMutes))
		paths = paths[:maxMutes]
	}
	set := make(map[string]struct{}, len(paths))
	for _, p := range paths {
		set[p] = struct{}{}
	}
	return set, refused
}

func mutePaths(paths, refused []string) ([]string, []string) {
	if len(paths) > maxMutes {
		refused = append(refused, fmt.Sprintf("mute_paths: %d prefixes, the most is %d; the rest is ignored", len(paths), maxMutes))
		paths = paths[:maxMutes]
	}
	out := make([]string, 0, len(paths))
	for _, p := range paths {
		if p == "" || p[0] != '/' {
			refused = append(refused, fmt.Sprintf("mute_paths: %q is not an absolute path", p))
			continue
		}
		out = append(out, p)
	}
	return out, refused
}

// cutToGrants takes from the subscription what is no longer granted. Caller holds the hub's order.
func (c *Client) cutToGrants(m *Member) {
	f := *c.sub.Load()
	f.events &= m.See
	f.questions, _ = answerable(f.questions&m.Decide, m, nil)
	c.sub.Store(&f)
}
