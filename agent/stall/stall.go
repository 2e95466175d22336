// Package stall says whether the machine stands still more than it did: by the kernel's pressure stall information, and by the units that the service
// manager gave up. It says nothing of whose doing that is; who asks has just changed something.
package stall

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"bailey/internal/launch"
)

// When a machine is said to stall. Pressure is in percent of the time in which somebody (some) or everybody (full) waited.
const (
	lookEvery   = time.Second
	unitsEvery  = 5 * time.Second
	unitsWait   = 2 * time.Second
	cpuMuch     = 80.0 // some, over 10 s
	cpuCalm     = 20.0 // some, over 300 s, before
	memoryMuch  = 40.0 // full
	memoryCalm  = 10.0
	ioMuch      = 60.0 // full
	ioCalm      = 15.0
	newlyFailed = 2
	inARow      = 3 // looks
)

// Watch compares the machine with how it was when the Watch was made. Not safe for concurrent use.
type Watch struct {
	dir    string
	failed func() (n int, known bool)
	now    func() time.Time

	calm    map[string]bool // kinds of pressure that were low
	looked  time.Time
	counted time.Time
	high    int
	last    string

	units struct { // counted beside the caller, who does not wait for the service manager
		sync.Mutex
		busy        bool
		known       bool
		first, last int
	}
}

// New takes note of how the machine is. Where the kernel knows no pressure, or there is no service manager, that is not looked at.
func New() *Watch { return newWatch("/proc/pressure", failedUnits, time.Now) }

func newWatch(dir string, failed func() (int, bool), now func() time.Time) *Watch {
	w := &Watch{dir: dir, failed: failed, now: now, calm: map[string]bool{}}
	for _, k := range kinds {
		if p, ok := w.read(k); ok {
			w.calm[k.name] = p.long < k.calm
		}
	}
	w.count()
	return w
}

// count counts failed units, beside the caller.
func (w *Watch) count() {
	w.counted = w.now()
	u := &w.units
	u.Lock()
	defer u.Unlock()
	if u.busy {
		return
	}
	u.busy = true
	go func() {
		n, ok := w.failed()
		u.Lock()
		defer u.Unlock()
		u.busy = false
		if !ok {
			return
		}
		if !u.known {
			u.known, u.first = true, n
		}
		u.last = n
	}()
}

type kind struct {
	name, line string
	much, calm float64
}

var kinds = []kind{{"cpu", "some", cpuMuch, cpuCalm}, {"memory", "full", memoryMuch, memoryCalm}, {"io", "full", ioMuch, ioCalm}}

// pressure is what one line says: over 10 s and over 300 s.
type pressure struct{ short, long float64 }

func (w *Watch) read(k kind) (p pressure, ok bool) {
	text, err := os.ReadFile(filepath.Join(w.dir, k.name))
	if err != nil {
		return p, false
	}
	return parse(string(text), k.line)
}

// parse reads one line of a pressure file (Documentation/accounting/psi.rst).
func parse(text, line string) (p pressure, ok bool) {
	for l := range strings.Lines(text) {
		f := strings.Fields(l)
		if len(f) == 0 || f[0] != line {
			continue
		}
		for _, word := range f[1:] {
			name, value, _ := strings.Cut(word, "=")
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return p, false
			}
			switch name {
			case "avg10":
				p.short = v
			case "avg300":
				p.long = v
			}
		}
		return p, true
	}
	return p, false
}

// Harm says how the machine stalls more than it did; empty if it does not. It may be called as often as one likes: it looks once a second.
func (w *Watch) Harm() string {
	now := w.now()
	if now.Sub(w.looked) < lookEvery {
		return w.last
	}
	w.looked, w.last = now, ""
	stalled := ""
	for _, k := range kinds {
		if p, ok := w.read(k); ok && w.calm[k.name] && p.short >= k.much {
			stalled = fmt.Sprintf("the machine stalls: for lack of %s in %.0f %% of the time", k.name, p.short)
		}
	}
	if w.high++; stalled == "" {
		w.high = 0
	}
	if w.high >= inARow {
		w.last = stalled
	}
	if now.Sub(w.counted) >= unitsEvery {
		w.count()
	}
	w.units.Lock()
	defer w.units.Unlock()
	if n := w.units.last - w.units.first; n >= newlyFailed {
		w.last = fmt.Sprintf("%d units of the service manager failed", n)
	}
	return w.last
}

// failedUnits asks systemd how many units failed.
func failedUnits() (int, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), unitsWait)
	defer cancel()
	out, err := launch.Output(exec.CommandContext(ctx, "systemctl", "show", "--property=NFailedUnits", "--value"))
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(out)))
	return n, err == nil
}
