package rules

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"bailey/agent/event"
	"bailey/internal/boottime"
	"bailey/internal/bpffs"
	"bailey/internal/bpflsm"
)

// The classes of refusals, beside ErrInvalid, ErrNotFound, ErrFull and ErrUnsupported.
var (
	ErrNotGranted = errors.New("not granted")
	ErrCritical   = errors.New("this machine cannot do without it")
	ErrUnknown    = errors.New("no such rule")
)

// Install puts a rule in force, in place of the product's rule of that id, and returns until when it holds, in nanoseconds since boot.
// While one replaces another, one of them holds.
func (r *Rules) Install(rule Rule) (until uint64, err error) {
	change := Change{Rule: rule, What: Installed}
	e, replaced, err := r.install(rule)
	if err != nil {
		change.What, change.Reason = Refused, err.Error()
	} else {
		change.Rule, change.Until = e.rule, e.until
		if replaced {
			change.What = Renewed
		}
	}
	r.tell([]Change{change})
	if err != nil {
		return 0, fmt.Errorf("install the rule %.80q: %w", rule.ID, err)
	}
	r.kick()
	return change.Until, nil
}

func (r *Rules) install(rule Rule) (e entry, replaced bool, err error) {
	if err := rule.Check(r.cfg.MaxLease); err != nil {
		return e, false, err
	}
	r.mu.Lock()
	_, err = r.granted(&rule)
	r.mu.Unlock()
	if err != nil {
		return e, false, err // before anything is looked at for it
	}
	s, err := lookFor(&rule.Match)
	if err != nil {
		return e, false, err
	}
	defer s.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	in, replaced, err := r.installLocked(rule, s)
	if err != nil {
		return e, false, err
	}
	return *in, replaced, nil
}

// granted returns the grant that covers a rule. r.mu is held.
func (r *Rules) granted(rule *Rule) (Grant, error) {
	g := r.grants[rule.Product]
	if !slices.Contains(g.Actions, rule.Action) {
		return g, fmt.Errorf("%w: the operator has not granted rule:%s", ErrNotGranted, rule.Action)
	}
	return g, nil
}

func (r *Rules) installLocked(rule Rule, s seen) (e *entry, replaced bool, err error) {
	grant, err := r.granted(&rule)
	if err != nil {
		return nil, false, err
	}
	old := r.find(rule.Product, rule.ID)
	if own := r.count(rule.Product); old == nil && own >= r.cfg.PerProduct {
		return nil, false, fmt.Errorf("%w: this product has %d, the most that the operator allows", ErrFull, own)
	}
	if err := r.need(); err != nil {
		return nil, false, err
	}
	if err := lacks(r.print, rule.Action); err != nil {
		return nil, false, err
	}
	e, err = r.prepare(rule, s, grant.Critical)
	if err != nil {
		return nil, false, err
	}
	if old != nil && old.rule.Action == rule.Action && old.key() == e.key() && old.rule.Match == e.rule.Match {
		return r.renew(old, e)
	}
	err = r.place(e, old)
	r.heard(rule.Action, err)
	return e, old != nil, err
}

// heard remembers whether the kernel calls the hooks that an action needs, by what became of a rule.
func (r *Rules) heard(a Action, err error) {
	_, before := r.silent[a]
	switch {
	case errors.Is(err, bpflsm.ErrSilent):
		r.silent[a] = err
		r.tellHealth()
	case before && err == nil:
		delete(r.silent, a)
		r.tellHealth()
	}
}

// prepare makes an entry of a rule, if it may hold.
func (r *Rules) prepare(rule Rule, s seen, critical bool) (*entry, error) {
	e := &entry{rule: rule, since: boottime.Now()}
	e.until = e.since + uint64(rule.Lease)
	var err error
	if e.target, err = r.kernel.resolve(&e.rule.Match, s); err != nil {
		return nil, err
	}
	if err := r.untouched(&e.rule); err != nil {
		return nil, err
	}
	if !critical {
		if err := r.harmless(&e.rule, e.target.named); err != nil {
			return nil, err
		}
	}
	if e.number, err = r.number(rule.Product); err != nil {
		return nil, err
	}
	return e, nil
}

// renew gives a rule that holds a new lease.
func (r *Rules) renew(old, e *entry) (*entry, bool, error) {
	before := *old
	old.until, old.rule.Lease, old.target.named = e.until, e.rule.Lease, e.target.named
	if err := r.kernel.write(old); err != nil {
		*old = before
		return nil, true, err
	}
	return old, true, nil
}

// place finds a slot for an entry and puts it in force, and takes the one away that it replaces.
func (r *Rules) place(e, old *entry) error {
	if err := share(r.entries, e); err != nil {
		return err
	}
	for slot := uint32(1); slot < maxRules && e.slot == 0; slot++ {
		if r.entries[slot] == nil {
			e.slot = slot
		}
	}
	if e.slot == 0 {
		return fmt.Errorf("%w: all products have %d together", ErrFull, len(r.entries))
	}
	r.serial++
	e.serial = r.serial
	if err := r.kernel.write(e); err != nil {
		return err
	}
	r.entries[e.slot] = e
	err := r.kernel.apply(compile(r.entries))
	if err == nil && old != nil {
		e.earlier = r.hits(old)
		r.forget(old)
		err = errors.Join(r.kernel.apply(compile(r.entries)), r.kernel.erase(old.slot), r.kernel.write(e))
	}
	if err == nil {
		return nil
	}
	delete(r.entries, e.slot)
	return errors.Join(err, r.kernel.apply(compile(r.entries)), r.kernel.erase(e.slot))
}

func (r *Rules) find(product, id string) *entry {
	for _, e := range r.entries {
		if e.rule.Product == product && e.rule.ID == id {
			return e
		}
	}
	return nil
}

func (r *Rules) count(product string) int {
	n := 0
	for _, e := range r.entries {
		if e.rule.Product == product {
			n++
		}
	}
	return n
}

// Remove ends a product's rule.
func (r *Rules) Remove(product, id, reason string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	r.mu.Lock()
	changes := r.dropLocked(func(e *entry) (string, string) {
		if e.rule.Product == product && e.rule.ID == id {
			return Removed, reason
		}
		return "", ""
	})
	r.mu.Unlock()
	r.tell(changes)
	if len(changes) == 0 {
		return fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	return nil
}

// dropLocked ends the rules for which judge has a word, and returns what to tell: of one whose lease has ended, that it has, whatever the
// word is. r.mu is held.
func (r *Rules) dropLocked(judge func(*entry) (what, reason string)) []Change {
	now := boottime.Now()
	var changes []Change
	var gone []*entry
	for _, e := range r.entries {
		what, reason := judge(e)
		if what == "" {
			continue
		}
		if e.until <= now {
			what, reason = Expired, leaseEnded
		}
		changes = append(changes, Change{Rule: e.rule, What: what, Until: e.until, Hits: r.hits(e), Reason: reason})
		gone = append(gone, e)
	}
	if len(gone) == 0 {
		return nil
	}
	for _, e := range gone {
		// At once, whatever becomes of the rest.
		if err := r.kernel.Maps[mapRules].Put(e.slot, kernelRule{}); err != nil {
			r.cfg.Log.Error("a rule could not be ended", "product", e.rule.Product, "rule", e.rule.ID, "err", err)
		}
		r.forget(e)
	}
	if err := r.kernel.apply(compile(r.entries)); err != nil {
		r.cfg.Log.Error("what ended rules need is still in the kernel", "err", err)
	}
	for _, e := range gone {
		if err := r.kernel.erase(e.slot); err != nil {
			r.cfg.Log.Error("a rule's slot could not be cleared", "err", err)
		}
	}
	return changes
}

// pastSpace is how many rules that have ended are remembered for hits that nobody has read yet.
const pastSpace = 256

func (r *Rules) forget(e *entry) {
	delete(r.entries, e.slot)
	r.past[e.serial] = e.rule
	r.pastList = append(r.pastList, e.serial)
	if len(r.pastList) > pastSpace {
		delete(r.past, r.pastList[0])
		r.pastList = r.pastList[1:]
	}
}

// untouched says whether a rule would hold for the platform's own processes.
func (r *Rules) untouched(rule *Rule) error {
	g := rule.Match.Cgroup
	if g == "" {
		return nil
	}
	for _, own := range r.cfg.Untouchable {
		if own == g || strings.HasPrefix(own, g+"/") || strings.HasPrefix(g, own+"/") {
			return fmt.Errorf("%w: the platform's own processes are in the control group %s", ErrCritical, g)
		}
	}
	return nil
}

// harmless says whether a rule would hold for what this machine cannot do without: a file of the critical set, or all that such
// a program does. Tracing a process is nothing that a machine needs.
func (r *Rules) harmless(rule *Rule, file event.File) error {
	m := &rule.Match
	if rule.Action == Ptrace {
		return nil
	}
	switch {
	case m.File != "" && r.cfg.Critical(&file):
		return fmt.Errorf("%w: %s is in the critical set; only the grant deny_critical allows such a rule", ErrCritical, m.File)
	case m.Below != "":
		if example, found := r.cfg.CriticalBelow(file.Path); found || r.cfg.Critical(&file) {
			return fmt.Errorf("%w: %s, below %s, is in the critical set; only the grant deny_critical allows such a rule", ErrCritical, example, m.Below)
		}
	}
	if !m.subjectOnly() {
		return nil
	}
	if slices.Contains([]Action{Exec, OpenWrite, UnlinkRename, MprotectExec}, rule.Action) {
		return fmt.Errorf("%w: the rule names no file, so it holds for those of the critical set too; name one, or the operator grants deny_critical", ErrCritical)
	}
	if m.Executable != "" && r.cfg.Critical(&file) {
		return fmt.Errorf("%w: %s is in the critical set; only the grant deny_critical allows such a rule", ErrCritical, m.Executable)
	}
	return r.harmlessGroup(m)
}

func (r *Rules) harmlessGroup(m *Match) error {
	if m.Cgroup == "" {
		return nil
	}
	var critical string
	programsIn(m.Cgroup, func(f *event.File) bool {
		if r.cfg.Critical(f) {
			critical = f.Path
		}
		return critical == ""
	})
	if critical != "" {
		return fmt.Errorf("%w: %s runs in the control group %s; only the grant deny_critical allows such a rule", ErrCritical, critical, m.Cgroup)
	}
	return nil
}

// Recheck ends rules that came to hold for what no rule may hold for: the critical set changes with what is installed.
func (r *Rules) Recheck() {
	harmful := map[uint32]string{} // by serial
	for serial, e := range r.named() {
		o, err := look(e.rule.Match.File + e.rule.Match.Below)
		if err != nil {
			continue // what it holds for has another name by now, or none
		}
		file := o.event()
		o.close()
		if file.Ino != e.target.named.Ino || file.Dev != e.target.named.Dev {
			continue // it holds for another file
		}
		if err := r.harmless(&e.rule, file); err != nil {
			harmful[serial] = err.Error()
		}
	}
	if len(harmful) == 0 {
		return
	}
	r.mu.Lock()
	changes := r.dropLocked(func(e *entry) (string, string) {
		reason, ok := harmful[e.serial]
		if !ok || r.grants[e.rule.Product].Critical {
			return "", ""
		}
		r.disabled[e.rule.Product] = e.rule.ID + ": " + reason
		return Disabled, reason
	})
	r.tellHealth()
	r.mu.Unlock()
	r.tell(changes)
}

// named returns the rules that name a file, of products that may not name critical ones.
func (r *Rules) named() map[uint32]entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[uint32]entry{}
	for _, e := range r.entries {
		if !r.grants[e.rule.Product].Critical && e.rule.Match.File+e.rule.Match.Below != "" {
			out[e.serial] = *e
		}
	}
	return out
}

// adopt takes over what an earlier agent left. r.mu is held.
func (r *Rules) adopt() (err error) {
	if _, err := os.Stat(r.cfg.Pins); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if r.print, err = newBlueprint(); err != nil {
		return err
	}
	if r.kernel, err = adopt(r.cfg.Pins, r.print); err != nil {
		// What somebody damaged is treated as another version's: what can be read of it is installed anew.
		r.cfg.Log.Error("the rules' pins are damaged", "path", r.cfg.Pins, "err", err)
		if err := setAside(r.cfg.Pins, r.print.Schema); err != nil {
			return err
		}
	}
	if r.kernel != nil {
		r.kernel.scratch, r.kernel.log = r.cfg.Scratch, r.cfg.Log
		close(r.loaded)
		if err := r.adoptEntries(); err != nil {
			return err
		}
	}
	return r.migrate()
}

func (r *Rules) adoptEntries() error {
	notes, err := readNotes(r.kernel.Maps[mapNotes])
	if err != nil {
		return err
	}
	for _, slot := range sortedSlots(notes) {
		n := notes[slot]
		var in kernelRule
		if err := r.kernel.Maps[mapRules].Lookup(slot, &in); err != nil {
			return fmt.Errorf("read a rule: %w", err)
		}
		r.serial = max(r.serial, n.Serial)
		if in.Action != uint32(n.Rule.Action) || in.Serial != n.Serial || r.find(n.Rule.Product, n.Rule.ID) != nil {
			continue // the agent was killed in the middle
		}
		e := n.entry(slot)
		e.until = in.Until
		r.numbers[n.Rule.Product] = n.Number
		r.lookAgain(e)
		r.entries[slot] = e
		r.cfg.Changed(Change{Rule: e.rule, What: Adopted, Until: e.until, Hits: r.hits(e)})
	}
	for slot := uint32(1); slot < maxRules; slot++ {
		var in kernelRule
		if r.entries[slot] != nil {
			continue
		}
		if err := r.kernel.Maps[mapRules].Lookup(slot, &in); err == nil && in.Action != 0 {
			if err := r.kernel.erase(slot); err != nil {
				return err
			}
		}
	}
	return r.kernel.apply(compile(r.entries))
}

// lookAgain finds out what stat says of the file that a rule of an earlier agent holds for.
func (r *Rules) lookAgain(e *entry) {
	path := e.rule.Match.File + e.rule.Match.Below
	if path == "" {
		return
	}
	m := Match{File: e.rule.Match.File, Below: e.rule.Match.Below}
	s, err := lookFor(&m)
	if err != nil {
		return
	}
	defer s.close()
	if t, err := r.kernel.resolve(&m, s); err == nil && t.file == e.target.file {
		e.target.named = t.named
	}
}

// migrate installs what agents of other versions left anew, for the rest of its lease, and takes the old away.
func (r *Rules) migrate() error {
	schema := r.print.Schema
	whole, broken := others(r.cfg.Pins, schema)
	for _, dir := range broken {
		if err := bpffs.Remove(dir); err != nil {
			r.cfg.Log.Warn("unfinished pins stay", "path", dir, "err", err)
		}
	}
	for _, dir := range whole {
		old, err := earlier(dir)
		if err != nil { // what nobody can list or end must not hold
			r.cfg.Log.Error("rules of another version are lost", "path", dir, "err", err)
		}
		if len(old) > 0 {
			if err := r.need(); err != nil {
				return err
			}
		}
		slices.SortFunc(old, func(a, b noted) int { return int(a.Serial) - int(b.Serial) })
		for i := range old {
			if err := r.installAgain(&old[i]); err != nil {
				r.cfg.Log.Warn("a rule of another version was not taken over", "product", old[i].Rule.Product, "rule", old[i].Rule.ID, "err", err)
			}
		}
		if err := bpffs.Remove(dir); err != nil {
			return err
		}
	}
	return nil
}

func (r *Rules) installAgain(n *noted) error {
	now := boottime.Now()
	if n.Until <= now {
		r.cfg.Changed(Change{Rule: n.Rule, What: Expired, Until: n.Until, Hits: n.Hits, Reason: leaseEnded})
		return nil
	}
	rule := n.Rule
	rule.Lease = time.Duration(n.Until - now)
	s, err := lookFor(&rule.Match)
	if err != nil {
		return err
	}
	defer s.close()
	e, err := r.prepare(rule, s, true) // it was allowed; SetGrants and Recheck look again
	if err != nil {
		return err
	}
	e.rule.Lease, e.since, e.earlier = n.Rule.Lease, n.Since, n.Hits
	if err := r.place(e, nil); err != nil {
		return err
	}
	r.cfg.Changed(Change{Rule: e.rule, What: Adopted, Until: e.until, Hits: n.Hits})
	return nil
}
