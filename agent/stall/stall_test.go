package stall

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// machine is one whose pressure is set by hand.
type machine struct {
	dir   string
	at    time.Time
	units int
}

// counted waits until the units that are counted beside the caller are.
func counted(w *Watch) {
	for busy := true; busy; {
		synctest.Wait()
		w.units.Lock()
		busy = w.units.busy
		w.units.Unlock()
	}
}

func (m *machine) press(t *testing.T, kind string, short, long float64) {
	t.Helper()
	line := func(name string) string {
		return fmt.Sprintf("%s avg10=%.2f avg60=0.00 avg300=%.2f total=1\n", name, short, long)
	}
	if err := os.WriteFile(filepath.Join(m.dir, kind), []byte(line("some")+line("full")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// look looks once a second until something is found, or for n seconds.
func (m *machine) look(w *Watch, n int) string {
	for range n {
		m.at = m.at.Add(time.Second)
		counted(w)
		if h := w.Harm(); h != "" {
			return h
		}
	}
	return ""
}

func run(t *testing.T, name string, f func(*testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestWatch(t *testing.T) {
	for name, c := range map[string]struct {
		before, after float64
		units         int
		seconds       int
		want          string
	}{
		"calm":                  {1, 2, 0, 30, ""},
		"it_stalls":             {1, 95, 0, 30, "for lack of"},
		"not_for_a_moment_only": {1, 95, 0, 2, ""},
		"it_stalled_before":     {90, 95, 0, 30, ""},
		"one_failed_unit":       {1, 2, 1, 30, ""},
		"several_failed_units":  {1, 2, 2, 30, "2 units"},
	} {
		run(t, name, func(t *testing.T) {
			m := &machine{dir: t.TempDir(), at: time.Unix(1000, 0), units: 4}
			for _, k := range kinds {
				m.press(t, k.name, c.before, c.before)
			}
			w := newWatch(m.dir, func() (int, bool) { return m.units, true }, func() time.Time { return m.at })
			counted(w)
			for _, k := range kinds {
				m.press(t, k.name, c.after, c.before)
			}
			m.units += c.units
			if got := m.look(w, c.seconds); got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
				t.Errorf("%q, expected %q", got, c.want)
			}
		})
	}
	run(t, "nothing_to_look_at", func(t *testing.T) {
		m := &machine{dir: t.TempDir(), at: time.Unix(1000, 0)}
		w := newWatch(m.dir, func() (int, bool) { return 99, false }, func() time.Time { return m.at })
		if got := m.look(w, 30); got != "" {
			t.Error(got)
		}
	})
	t.Run("this_machine", func(t *testing.T) {
		w := New()
		_ = w.Harm() // whatever it is
		if _, err := os.Stat("/proc/pressure/cpu"); err == nil {
			if _, ok := w.read(kinds[0]); !ok {
				t.Error("this kernel's pressure file is not understood")
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=1.50 avg60=0.00 avg300=0.20 total=12\n")
	f.Add("full")
	f.Add("full avg10")
	f.Fuzz(func(_ *testing.T, text string) { parse(text, "full") })
}
