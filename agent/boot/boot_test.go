package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// machine is a machine whose power can be cut: what is not on its disk is forgotten.
type machine struct {
	t        *testing.T
	state    string
	boots    int
	running  *Boot
	releases map[string]string // of the products' records
	previous map[string]string
	forced   string
	platform string
}

const limit = 3

func newMachine(t *testing.T) *machine {
	t.Helper()
	return &machine{t: t, state: t.TempDir(), releases: map[string]string{"edr": "1"}, previous: map[string]string{}, platform: "bailey 1 on 6.1"}
}

// boot is the first start of an agent in a new boot. With cut, the power goes after that many products went back, before anything is written.
func (m *machine) boot(cut int) Judgement {
	m.t.Helper()
	m.boots++
	return m.start(cut)
}

// start is a start of the agent in the boot in course.
func (m *machine) start(cut int) Judgement {
	m.t.Helper()
	b := Open(Config{State: m.state, ID: fmt.Sprint("boot ", m.boots), Platform: m.platform, Limit: limit})
	j := b.Judge(m.releases, m.forced)
	var back []Back
	for i, name := range j.Suspect {
		if i == cut {
			return j
		}
		if m.previous[name] != "" {
			back = append(back, Back{name, m.releases[name], m.previous[name]})
			m.releases[name], m.previous[name] = m.previous[name], ""
		}
	}
	if cut == len(j.Suspect) {
		return j
	}
	if !j.Again {
		b.Begin(j, back)
	}
	if err := errors.Join(b.Problem(), b.Running()); err != nil {
		m.t.Fatal(err)
	}
	m.running = b
	return j
}

const whole = -1 // nothing is cut

func (m *machine) good() {
	m.t.Helper()
	if err := m.running.Good(m.releases); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) shutdown() {
	m.t.Helper()
	if err := m.running.End(); err != nil {
		m.t.Fatal(err)
	}
}

// install puts another release in force.
func (m *machine) install(name, release string) {
	if old := m.releases[name]; old != "" {
		m.previous[name] = old
	}
	m.releases[name] = release
}

// TestOrders: every order of a boot's events, and what the next boot makes of it.
func TestOrders(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before  func(*machine) // in a boot that was never marked good; the one before it was, with edr 1
		unclean int            // counted by the next boot
		edr     string         // in force then
	}{
		"power_cut":                          {func(*machine) {}, 1, "1"},
		"shutdown":                           {(*machine).shutdown, 0, "1"},
		"good_then_power_cut":                {(*machine).good, 0, "1"},
		"good_then_shutdown":                 {func(m *machine) { m.good(); m.shutdown() }, 0, "1"},
		"change_then_power_cut":              {func(m *machine) { m.install("edr", "2") }, 1, "1"},
		"change_then_shutdown":               {func(m *machine) { m.install("edr", "2"); m.shutdown() }, 0, "2"},
		"change_then_good_then_power_cut":    {func(m *machine) { m.install("edr", "2"); m.good() }, 0, "2"},
		"good_then_change_then_power_cut":    {func(m *machine) { m.good(); m.install("edr", "2") }, 1, "1"},
		"good_then_change_then_shutdown":     {func(m *machine) { m.good(); m.install("edr", "2"); m.shutdown() }, 0, "2"},
		"agent_again_then_power_cut":         {func(m *machine) { m.shutdown(); m.start(whole) }, 1, "1"},
		"agent_killed_and_again_then_good":   {func(m *machine) { m.start(whole); m.start(whole); m.good() }, 0, "1"},
		"agent_again_after_good":             {func(m *machine) { m.good(); m.shutdown(); m.start(whole) }, 0, "1"},
		"new_product_then_power_cut":         {func(m *machine) { m.good(); m.install("new", "1") }, 1, "1"},
		"product_removed_then_power_cut":     {func(m *machine) { m.good(); delete(m.releases, "edr") }, 0, ""},
		"product_switched_off_and_power_cut": {func(m *machine) { delete(m.releases, "edr") }, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.boot(whole)
			m.good()
			m.shutdown()
			m.boot(whole)
			c.before(m)
			m.boot(whole)
			if r := m.running.Record(); r.Unclean != c.unclean || m.releases["edr"] != c.edr || r.Safe != "" {
				t.Errorf("%d unclean boots, edr %q, safe %q; want %d, %q, none", r.Unclean, m.releases["edr"], r.Safe, c.unclean, c.edr)
			}
		})
	}
}

// TestUncleanInARow: the first takes the change back, the third is safe mode, a good boot in between starts anew, an orderly one does not count.
func TestUncleanInARow(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.boot(whole)
	m.good()
	m.install("edr", "2")
	m.boot(whole) // 1
	if r := m.running.Record(); r.Unclean != 1 || !cmp.Equal(r.Back, []Back{{"edr", "2", "1"}}) {
		t.Errorf("the first: %+v", r)
	}
	m.shutdown()
	m.boot(whole)
	m.boot(whole) // 2
	if r := m.running.Record(); r.Unclean != 2 || r.Safe != "" || m.releases["edr"] != "1" {
		t.Errorf("the second: %+v", r)
	}
	m.good()
	m.boot(whole)
	if r := m.running.Record(); r.Unclean != 0 || r.Back != nil {
		t.Errorf("after a good one: %+v", r)
	}
	for n := 1; n <= limit; n++ {
		m.boot(whole)
		if r := m.running.Record(); r.Unclean != n || (r.Safe != "") != (n == limit) {
			t.Errorf("%d in a row: %+v", n, r)
		}
	}
	m.start(whole)
	if m.running.Record().Safe == "" {
		t.Error("an agent that is started again in the same boot left safe mode")
	}
}

// safe brings a new machine into safe mode.
func safe(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t)
	m.boot(whole)
	for range limit {
		m.boot(whole)
	}
	if m.running.Record().Safe == "" {
		t.Fatalf("%+v", m.running.Record())
	}
	return m
}

func TestSafeModeIsLeft(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(*machine)
		left bool
	}{
		"by_nothing":               {func(*machine) {}, false},
		"not_by_a_good_boot":       {(*machine).good, false},
		"not_by_a_shutdown":        {(*machine).shutdown, false},
		"by_the_operator":          {func(m *machine) { _ = m.running.Forget() }, true},
		"by_another_release":       {func(m *machine) { m.install("edr", "2") }, true},
		"by_switching_it_off":      {func(m *machine) { delete(m.releases, "edr") }, true},
		"not_by_another_product":   {func(m *machine) { m.install("new", "1") }, false},
		"by_the_release_before_it": {func(m *machine) { m.releases["edr"] = "0" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := safe(t)
			c.do(m)
			for boots := range 3 { // each in order
				m.shutdown()
				m.boot(whole)
				if left := m.running.Record().Safe == ""; left != c.left {
					t.Fatalf("boot %d: left is %v, want %v: %+v", boots, left, c.left, m.running.Record())
				}
			}
		})
	}
}

// TestSensorsOff: as many unclean boots in a row in safe mode as brought it about leave the sensors off, until something changes.
func TestSensorsOff(t *testing.T) {
	t.Parallel()
	off := func(m *machine) bool { return m.running.Record().SensorsOff() != "" }
	for name, c := range map[string]struct {
		do        func(*machine)
		off, safe bool // in the next boot
	}{
		"not_by_a_good_boot":     {(*machine).good, true, true},
		"not_by_another_unclean": {func(*machine) {}, true, true},
		"by_the_operator":        {func(m *machine) { _ = m.running.Forget() }, false, false},
		"by_another_agent":       {func(m *machine) { m.good(); m.platform = "bailey 2 on 6.1" }, false, true},
		"by_another_release":     {func(m *machine) { m.good(); m.install("edr", "2") }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := safe(t)
			for range limit {
				if off(m) {
					t.Fatalf("too early: %+v", m.running.Record())
				}
				m.boot(whole)
			}
			if !off(m) {
				t.Fatalf("%+v", m.running.Record())
			}
			m.start(whole)
			if !off(m) {
				t.Error("an agent that is started again in the same boot has sensors")
			}
			c.do(m)
			m.boot(whole)
			if r := m.running.Record(); off(m) != c.off || (r.Safe != "") != c.safe {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestSensorsStayOn where a boot in safe mode was good in between, and are on trial on another platform.
func TestSensorsStayOn(t *testing.T) {
	t.Parallel()
	m := safe(t)
	for range 2 * limit {
		m.boot(whole)
		m.good()
		m.boot(whole)
	}
	if r := m.running.Record(); r.SensorsOff() != "" || r.Safe == "" {
		t.Errorf("%+v", r)
	}
	for range limit {
		m.boot(whole)
	}
	m.platform = "another"
	m.boot(whole)
	if r := m.running.Record(); r.SensorsOff() != "" {
		t.Errorf("they are not tried: %+v", r)
	}
	m.boot(whole)
	if r := m.running.Record(); r.SensorsOff() == "" || r.Distrusted != "another" {
		t.Errorf("one more unclean boot: %+v", r)
	}
}

// TestWithoutProducts: where none is installed, a good boot in safe mode is a good boot.
func TestWithoutProducts(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.releases = map[string]string{}
	m.boot(whole)
	for range limit {
		m.boot(whole)
	}
	m.boot(whole)
	if r := m.running.Record(); r.Safe == "" {
		t.Fatalf("%+v", r)
	}
	m.good()
	m.boot(whole)
	if r := m.running.Record(); r.Safe != "" || r.Unclean != 0 {
		t.Errorf("%+v", r)
	}
}

// TestRemedyIsOnTrial: one unclean boot after it is enough for safe mode, and it is not exchanged for what it remedied.
func TestRemedyIsOnTrial(t *testing.T) {
	t.Parallel()
	m := safe(t)
	m.install("edr", "2")
	m.shutdown()
	m.boot(whole)
	m.boot(whole)
	if r := m.running.Record(); r.Safe == "" || m.releases["edr"] != "2" {
		t.Errorf("%+v, edr %s", r, m.releases["edr"])
	}
	m.install("edr", "3")
	m.shutdown()
	m.boot(whole)
	m.good()
	m.boot(whole)
	if r := m.running.Record(); r.Safe != "" || r.Unclean != 0 || m.releases["edr"] != "3" {
		t.Errorf("%+v, edr %s", r, m.releases["edr"])
	}
}

// TestPowerCutBetweenSteps: wherever the power is cut while changes are taken back, the next boot takes back the rest and counts the unclean boot,
// unless nothing was left to take back: then it was as good as the last good one.
func TestPowerCutBetweenSteps(t *testing.T) {
	t.Parallel()
	for cut := range 4 {
		m := newMachine(t)
		m.releases["av"], m.releases["dlp"] = "1", "1"
		m.boot(whole)
		m.good()
		for name := range m.releases {
			m.install(name, "2")
		}
		m.boot(cut)
		m.boot(whole)
		unclean := 1
		if cut == 3 {
			unclean = 0
		}
		if r := m.running.Record(); r.Unclean != unclean || !cmp.Equal(m.releases, map[string]string{"edr": "1", "av": "1", "dlp": "1"}) {
			t.Errorf("cut after %d: %+v, %v", cut, r, m.releases)
		}
	}
}

// TestNobodyKnowsWhatIsNew: where no boot was ever good, nothing is taken back.
func TestNobodyKnowsWhatIsNew(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.install("edr", "2")
	m.boot(whole)
	m.boot(whole)
	if r := m.running.Record(); r.Unclean != 1 || m.releases["edr"] != "2" {
		t.Errorf("%+v, edr %s", r, m.releases["edr"])
	}
}

func TestForced(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.boot(whole)
	m.good()
	m.shutdown()
	m.forced = "by the command line"
	m.boot(whole)
	if r := m.running.Record(); r.Safe != m.forced || r.Unclean != 0 {
		t.Errorf("%+v", r)
	}
	m.install("edr", "2")
	m.good()
	if r := m.running.Record(); r.LastGood["edr"] != "1" {
		t.Errorf("what did not run was proven good: %+v", r)
	}
	m.shutdown()
	m.forced = ""
	m.boot(whole)
	if r := m.running.Record(); r.Safe != "" {
		t.Errorf("the next: %+v", r)
	}
	m.shutdown()
	r, err := Read(m.state)
	r.Next = true
	if err := errors.Join(err, Write(m.state, r)); err != nil {
		t.Fatal(err)
	}
	m.boot(whole)
	if r := m.running.Record(); r.Safe == "" || r.Next {
		t.Errorf("by the operator: %+v", r)
	}
	m.shutdown()
	m.boot(whole)
	if r := m.running.Record(); r.Safe != "" {
		t.Errorf("once: %+v", r)
	}
}

// TestDownWhileRehearsed: what the machine went down under is counted until a rehearsal of it ends.
func TestDownWhileRehearsed(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.boot(whole)
	m.good()
	for want := range 3 {
		downs, err := m.running.Try("edr 2")
		if err != nil || downs != want {
			t.Errorf("%d, %v; want %d", downs, err, want)
		}
		m.boot(whole)
	}
	if _, err := m.running.Try("edr 2"); err != nil {
		t.Fatal(err)
	}
	m.start(whole) // the agent was killed; the machine was not
	if downs, err := m.running.Try("edr 2"); err != nil || downs != 3 {
		t.Errorf("%d, %v", downs, err)
	}
	if err := m.running.Tried("edr 2"); err != nil {
		t.Fatal(err)
	}
	if downs, err := m.running.Try("edr 2"); err != nil || downs != 0 {
		t.Errorf("after one that ended: %d, %v", downs, err)
	}
}

// TestDamaged: it is told, counts as nothing, and the next record is whole.
func TestDamaged(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"empty": "", "torn": `{"boot": "a", "uncl`, "of_another_kind": `[]`, "impossible": `{"boot":"a","unclean":-3}`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			if err := os.WriteFile(filepath.Join(m.state, FileName), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			b := Open(Config{State: m.state, ID: "now", Limit: limit})
			j := b.Judge(m.releases, "")
			if !errors.Is(b.Problem(), ErrDamaged) || j.Unclean || j.Suspect != nil || j.Next.Safe != "" {
				t.Fatalf("%v, %+v", b.Problem(), j)
			}
			b.Begin(j, nil)
			if !errors.Is(b.Problem(), ErrDamaged) {
				t.Errorf("nobody hears of it: %v", b.Problem())
			}
			if err := b.Good(m.releases); err != nil || b.Problem() != nil {
				t.Errorf("%v, %v", err, b.Problem())
			}
			if r, err := Read(m.state); err != nil || !r.Good || r.Boot != "now" {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// TestNoDisk: an agent whose record cannot be written goes on, with what it knows.
func TestNoDisk(t *testing.T) {
	t.Parallel()
	b := Open(Config{State: filepath.Join(t.TempDir(), "missing"), ID: "now", Limit: limit})
	j := b.Judge(map[string]string{"edr": "1"}, "forced")
	b.Begin(j, nil)
	if err := b.Problem(); err == nil || !strings.Contains(err.Error(), "write the record of boots") {
		t.Errorf("%v", err)
	}
	if err := b.Good(nil); err == nil {
		t.Error("it was written")
	}
	if r := b.Record(); r.Safe != "forced" || !r.Good {
		t.Errorf("%+v", r)
	}
}

// TestUnknownBoot: where the kernel does not say which boot it is, nothing is counted.
func TestUnknownBoot(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.boot(whole)
	if j := Open(Config{State: m.state, Limit: limit}).Judge(m.releases, ""); !j.Again || j.Unclean || j.Suspect != nil {
		t.Errorf("%+v", j)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"boot":"a","good":true,"last_good":{"edr":"1"},"back":[{"product":"edr","from":"2","to":"1"}]}`))
	f.Add([]byte(`{"unclean":9999999999999999999999}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parse(text, "file")
		if err != nil {
			return
		}
		j := Judge(r, Facts{Boot: "now", Releases: map[string]string{"edr": "1"}, Limit: limit})
		if j.Next.Boot != "now" {
			t.Errorf("%+v", j)
		}
	})
}
