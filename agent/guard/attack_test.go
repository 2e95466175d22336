package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// errEffect is how an attack says that it saw its effect itself, where a snapshot cannot.
var errEffect = errors.New("EFFECT")

// attack is one attempt by root. It runs in a process of its own, which nobody trusts.
type attack struct {
	name string
	hook string // what refuses it
	do   func(*scene) error

	quiet    bool   // counted and not reported: ps does the same
	possible string // why it is not stopped
	control  string // why it has no effect without the guard either: such a row proves nothing
}

// stoppedMin is how many attacks the guard stops and tells of at least, of those that take effect without it.
const stoppedMin = 120

// groups are the attacks by what they are aimed at.
func groups() map[string][]attack {
	return map[string][]attack{
		"process": processAttacks(), "cgroup": cgroupAttacks(), "file": fileAttacks(), "mount": mountAttacks(), "kernel": kernelAttacks(),
		"trust": trustAttacks(), "scsi": scsiAttacks(), "mapper": mapperAttacks(), "starve": starveAttacks(),
	}
}

func beAttacker(name string, s *scene) error {
	for _, group := range groups() {
		for _, a := range group {
			if a.name == name {
				return a.do(s)
			}
		}
	}
	return fmt.Errorf("no attack %q", name)
}

// outcome is what came of one attack.
type outcome struct {
	effect  []string // what changed
	changed bool     // not only for as long as the attack took
	errno   string   // what the attacker was told
	hooks   []string // what was reported
	counted bool     // the hook that is to refuse it counted something
	undone  bool
}

// try runs one attack against a scene.
func (s *scene) try(t *testing.T, a attack) outcome {
	t.Helper()
	if s.Guarded { // what came before is not this attack's
		if err := s.tell("attempts", new([]Attempt)); err != nil {
			t.Fatal(err)
		}
	}
	before := s.look()
	refused, old := s.refusals(t, a), settings()
	cmd := s.helper(a.name)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(15*time.Second, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	timer.Stop()
	if err := restore(old); err != nil {
		t.Fatal(err)
	}
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	o := outcome{counted: s.refusals(t, a) > refused}
	for until := time.Now().Add(150 * time.Millisecond); time.Now().Before(until); time.Sleep(50 * time.Millisecond) { //nolint:forbidigo // an effect may come late
		if o.effect = before.difference(s.look()); len(o.effect) > 0 == !s.Guarded {
			break
		}
	}
	o.changed = len(o.effect) > 0
	if strings.Contains(stdout.String(), errEffect.Error()) {
		o.effect = append(o.effect, "seen by the attacker")
	}
	o.errno = strings.TrimSpace(stderr.String())
	if s.Guarded && s.stopped() == "" {
		s.hear(t, a, &o)
	}
	return o
}

// hear asks the victim what it was told. It may be told late, on a busy machine.
func (s *scene) hear(t *testing.T, a attack, o *outcome) {
	t.Helper()
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) { //nolint:forbidigo // it reads the ring meanwhile
		var seen []Attempt
		if err := s.tell("attempts", &seen); err != nil {
			t.Fatal(err)
		}
		for _, b := range seen {
			o.hooks = append(o.hooks, b.Hook.String())
			o.undone = o.undone || b.Undone
		}
		if a.quiet || slices.Contains(o.hooks, a.hook) || a.hook == "" || len(o.effect) > 0 || time.Now().After(until) {
			break
		}
	}
	slices.Sort(o.hooks)
	o.hooks = slices.Compact(o.hooks)
}

// refusals returns how often the hook refused that is to refuse an attack which nobody is told of.
func (s *scene) refusals(t *testing.T, a attack) uint64 {
	t.Helper()
	if !s.Guarded || !a.quiet || s.stopped() != "" {
		return 0
	}
	var all []Tally
	if err := s.tell("tallies", &all); err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		if n.Hook.String() == a.hook {
			return n.Refused
		}
	}
	return 0
}

// The words for what became of an attack that was tried with the guard.
const (
	stoppedReported = "stopped and reported"
	stoppedCounted  = "stopped and counted"
	undoneReported  = "undone and reported"
	onlyReported    = "reported"
	onlyPossible    = "possible"
)

// row is an attack's line in docs/tamper.md, which test/vm makes of what it finds in the report.
type row struct {
	Group, Attack, Hook, Outcome, Control, Why string
}

// rowPrefix marks a row in the test's output, endPrefix the number of them when nothing was left out.
const (
	rowPrefix = "VM-ATTACK "
	endPrefix = "VM-ATTACKS "
)

// TestAttacks tries everything without the guard, where it must take effect, and with it, where it must not.
func TestAttacks(t *testing.T) {
	needsVM(t)
	needsModules(t)
	spareThreads() // some attacks leave none
	var rows []row
	groups, complete := groups(), 0
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		t.Run(name, func(t *testing.T) {
			complete++
			rows = append(rows, tryGroup(t, name, groups[name])...)
		})
	}
	counted, stopped := 0, 0
	for _, r := range rows {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(rowPrefix + string(text))
		if r.Control != takesEffect {
			continue
		}
		counted++
		if r.Outcome == stoppedReported {
			stopped++
		}
	}
	t.Logf("%d attacks, %d of them take effect without the guard, %d of these are stopped and reported", len(rows), counted, stopped)
	if complete < len(groups) {
		return // only some were asked for
	}
	if stopped < stoppedMin {
		t.Errorf("%d attacks are stopped and reported that take effect without the guard, want %d", stopped, stoppedMin)
	}
	t.Logf(endPrefix+"%d", len(rows))
}

func tryGroup(t *testing.T, name string, attacks []attack) []row {
	// First all without: there is one guard on a machine, and it refuses everybody.
	b, err := newBlueprint()
	if err != nil {
		t.Fatal(err)
	}
	for i := range attacks {
		if attacks[i].hook == setACL && b.Spec.Programs[setACL] == nil {
			attacks[i].hook = "inode_setxattr"
		}
	}
	controls := tryAll(t, attacks, false, scenery[name])
	var rows []row
	for i, with := range tryAll(t, attacks, true, scenery[name]) {
		a, control := attacks[i], controls[i]
		rows = append(rows, row{Group: name, Attack: a.name, Hook: a.hook, Outcome: judge(t, a, control, with), Control: effectWord(control), Why: a.why()})
	}
	return rows
}

// tryAll tries attacks one after the other, each on a scene that none before has changed.
func tryAll(t *testing.T, attacks []attack, guarded bool, scenery []func(*scene)) []outcome {
	var out []outcome
	var s *scene
	for _, a := range attacks {
		if s == nil {
			s = newScene(t, guarded, scenery...)
		}
		o := s.try(t, a)
		if out = append(out, o); o.changed {
			s.end(t)
			s = nil
		}
	}
	if s != nil {
		s.end(t)
	}
	return out
}

// why says what is to be said about an attack that is not simply stopped.
func (a attack) why() string {
	switch {
	case a.quiet:
		return "ps and journald read the same all day: it is counted, and nobody is told"
	case a.hook == moveHook:
		return "the kernel asks nobody before a move; the agent moves it back"
	case a.control != "":
		return "does not count: " + a.control
	}
	return a.possible
}

const takesEffect = "takes effect"

func effectWord(o outcome) string {
	if len(o.effect) == 0 {
		return "no effect"
	}
	return takesEffect
}

// judge says in a few words what became of an attack, and fails the test where that is not what the list says.
func judge(t *testing.T, a attack, control, with outcome) string {
	t.Helper()
	if (len(control.effect) > 0) != (a.control == "") {
		t.Errorf("%s: without the guard: %q %s", a.name, control.effect, control.errno)
	}
	if a.control != "" { // what refuses it there is worth reading
		t.Logf("%s: without the guard: %s", a.name, control.errno)
	}
	if len(with.effect) > 0 {
		if a.possible == "" {
			t.Errorf("%s: with the guard: %q, reported by %v, %s", a.name, with.effect, with.hooks, with.errno)
		}
		if a.hook != "" && slices.Contains(with.hooks, a.hook) {
			return onlyReported
		}
		return onlyPossible
	}
	if a.possible != "" {
		t.Errorf("%s: stopped by %v, and the list says that it is possible", a.name, with.hooks)
	}
	switch {
	case a.quiet:
		if !with.counted || len(with.hooks) > 0 {
			t.Errorf("%s: stopped; counted by %s: %t; reported by %v, want by nobody", a.name, a.hook, with.counted, with.hooks)
		}
		return stoppedCounted
	case a.hook == "" && a.control == "", a.hook != "" && !slices.Contains(with.hooks, a.hook):
		t.Errorf("%s: stopped, and reported by %v, not %q: %s", a.name, with.hooks, a.hook, with.errno)
	case with.undone != (a.hook == moveHook):
		t.Errorf("%s: undone: %t, hook %s", a.name, with.undone, a.hook)
	}
	switch {
	case with.undone:
		return undoneReported
	case a.hook == "": // of no effect anyway
		return "nothing to stop"
	}
	return stoppedReported
}
