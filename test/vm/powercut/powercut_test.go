package powercut

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// long reports whether there is time for what `make test` has none for: `make vm ALL=1` has.
func long() bool { return os.Getenv("BAILEY_VM_LONG") != "" }

// states are all that an update comes into, but for those in which it waits for an operator.
var states = []string{"fetch", "stage", "rehearse", "shadow", "promote", "watch", "roll_back", "committed", "refused", "rolled_back"}

// TestPowerCutAtEachState: the power goes the moment the record says that an update is in a state. The next boot is in order, by itself.
func TestPowerCutAtEachState(t *testing.T) {
	tried := []string{"promote", "watch"}
	if long() {
		tried = states
	}
	b := newBench(t)
	b.renew()
	for _, at := range tried {
		l := b.boot(moment{at: at})
		if l.done { // no release was left that comes into it
			b.renew()
			l = b.boot(moment{at: at})
		}
		if l.done {
			t.Fatalf("no update is ever in state %s", at)
		}
		after := b.boot(moment{})
		t.Logf("cut at %s after %.1f s; then: %s", at, l.wall.Seconds(), after.checked)
		if after.checked == "" {
			t.Errorf("after a power cut at %s nobody found the machine in order", at)
		}
	}
}

// TestPowerCutsAtRandom: the power goes at any moment of a boot or of an update, BAILEY_VM_CUTS times. BAILEY_VM_SEED repeats the moments of another run.
func TestPowerCutsAtRandom(t *testing.T) {
	cuts := number(t, "BAILEY_VM_CUTS", 3)
	seed := number(t, "BAILEY_VM_SEED", rand.IntN(1<<30))
	t.Logf("BAILEY_VM_SEED=%d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	b := newBench(t)
	b.renew()
	began, checked, lives := time.Now(), 0, 1
	in := map[string]int{} // cuts by state of the update
	for n := range cuts {
		m := anyMoment(random)
		l := b.boot(m)
		_, state, _ := strings.Cut(l.state, " ")
		switch {
		case l.checked == "":
			state = "boot"
		case state == "":
			state = "none"
		}
		in[state]++
		if l.checked != "" {
			checked++
		}
		t.Logf("cut %d, %s, after %.1f s, in %s; found: %s", n+1, m, l.wall.Seconds(), state, l.checked)
		if l.done {
			b.renew()
			lives++
		}
	}
	if l := b.boot(moment{}); l.checked == "" {
		t.Error("nobody found the machine in order in the end")
	}
	t.Logf("%d power cuts in %.0f s, %.1f s each, on %d disks; %d boots between them lasted until they were looked at, and all were in order; cuts by state: %s",
		cuts, time.Since(began).Seconds(), time.Since(began).Seconds()/float64(max(cuts, 1)), lives, checked, count(in))
}

// maxWrites is as many files as the agent may have put in their places when the power goes. Each update has some twenty.
const maxWrites = 40

// anyMoment is one in a boot, which takes some seconds; a while after one, when most likely a release is rehearsed; soon after an update came into a state; or
// right when a file was put in its place.
func anyMoment(random *rand.Rand) moment {
	upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d))) }
	switch random.IntN(5) {
	case 0:
		return moment{early: true, after: upTo(12 * time.Second)}
	case 1:
		return moment{state: states[random.IntN(len(states))], after: upTo(time.Second)}
	case 2:
		return moment{write: 1 + random.IntN(maxWrites)}
	}
	return moment{after: upTo(14 * time.Second)}
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func count(in map[string]int) string {
	var out []string
	for _, state := range slices.Sorted(maps.Keys(in)) {
		out = append(out, fmt.Sprintf("%s %d", state, in[state]))
	}
	return strings.Join(out, ", ")
}
