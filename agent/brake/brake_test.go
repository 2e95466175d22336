package brake

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"

	"github.com/google/go-cmp/cmp"
)

func TestRules(t *testing.T) {
	t.Parallel()
	each := func(n int, format string) func(*bench) {
		return func(b *bench) {
			for i := range n {
				b.deny(fmt.Sprintf(format, i), uint64(i+1), event.DenyStood)
				b.judgedFrom(i)
			}
		}
	}
	again := func(n, files int, path string) func(*bench) {
		return func(b *bench) {
			for i := range n {
				ino := uint64(i % files)
				b.deny(fmt.Sprintf("%s%d", path, ino), 1000+ino, event.DenyStood)
				b.judgedFrom(i)
			}
		}
	}
	tests := map[string]struct {
		limits Limits
		deny   []func(*bench)
		want   string
	}{
		"five_files_of_packages":          {Limits{}, []func(*bench){each(5, "/usr/bin/%d")}, ""},
		"six_files_of_packages":           {Limits{}, []func(*bench){each(6, "/usr/bin/%d")}, TooManyPackageFiles},
		"twenty_files_of_users":           {Limits{}, []func(*bench){each(20, "/home/u/%d")}, ""},
		"twenty_one_files_of_users":       {Limits{}, []func(*bench){each(21, "/home/u/%d")}, TooManyFiles},
		"many_more_than_are_remembered":   {Limits{}, []func(*bench){each(5000, "/home/u/%d")}, TooManyFiles},
		"one_malware_file_1000_times":     {Limits{}, []func(*bench){again(1000, 1, "/home/u/malware")}, ""},
		"one_file_of_root_1000_times":     {Limits{}, []func(*bench){again(1000, 1, "/opt/malware")}, ""},
		"four_unknown_scripts_many_times": {Limits{}, []func(*bench){again(1000, 4, "/opt/script")}, ""},
		"five_programs_of_root":           {Limits{}, []func(*bench){again(1000, 5, "/opt/program")}, TooManyExecs},
		"five_programs_of_a_user":         {Limits{}, []func(*bench){again(1000, 5, "/home/u/program")}, ""},
		"five_programs_rarely":            {Limits{}, []func(*bench){again(10, 5, "/opt/program")}, ""},
		"five_programs_not_so_rarely":     {Limits{}, []func(*bench){again(11, 5, "/opt/program")}, TooManyExecs},
		"limits_of_the_operator":          {Limits{PackageFiles: 1, Files: 2}, []func(*bench){each(2, "/usr/bin/%d")}, TooManyPackageFiles},
		"more_allowed_by_the_operator":    {Limits{PackageFiles: 100, Files: 100}, []func(*bench){each(10, "/usr/bin/%d")}, ""},
		"more_packages_than_files":        {Limits{PackageFiles: 100, Files: 10}, []func(*bench){each(11, "/usr/bin/%d")}, TooManyFiles},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, test.limits, func(t *testing.T, b *bench) {
				for _, deny := range test.deny {
					// In two parts, because a share of execs is judged from the first deny on: of twice ten, nineteen count.
					deny(b)
					time.Sleep(2 * time.Second)
					deny(b)
				}
				time.Sleep(2 * time.Second)
				b.want(t, test.want)
			})
		})
	}
}

func TestWithinTenSeconds(t *testing.T) {
	t.Parallel()
	run(t, Limits{}, func(t *testing.T, b *bench) {
		start := time.Now()
		for i := 0; !b.isBraked(); i++ {
			b.deny(fmt.Sprintf("/opt/program%d", i%6), uint64(i%6+1), event.DenyStood)
			b.mu.Lock()
			b.execs += 2 // a third of all is denied
			b.mu.Unlock()
			time.Sleep(100 * time.Millisecond)
			if time.Since(start) > 10*time.Second {
				t.Fatal("a product that denies a third of all execs goes on for 10 s")
			}
		}
		b.want(t, TooManyExecs)
	})
}

func TestFewOfManyExecsAreNoReason(t *testing.T) {
	t.Parallel()
	run(t, Limits{}, func(t *testing.T, b *bench) {
		for i := range 600 {
			b.deny(fmt.Sprintf("/opt/program%d", i%6), uint64(i%6+1), event.DenyStood)
			b.mu.Lock()
			b.execs += 30
			b.mu.Unlock()
			time.Sleep(100 * time.Millisecond)
		}
		b.want(t, "")
	})
}

func TestRememberedDeniesCountAsExecs(t *testing.T) {
	t.Parallel()
	run(t, Limits{}, func(t *testing.T, b *bench) {
		for i := range 5 {
			b.deny(fmt.Sprintf("/opt/program%d", i), uint64(i+1), event.DenyStood)
		}
		time.Sleep(1500 * time.Millisecond)
		b.mu.Lock()
		b.repeated, b.execs = 100, 100
		b.mu.Unlock()
		time.Sleep(2 * time.Second)
		b.want(t, TooManyExecs)
	})
}

func TestDeniesGrowOld(t *testing.T) {
	t.Parallel()
	run(t, Limits{}, func(t *testing.T, b *bench) {
		for i := range 100 { // one in 13 s: never more than five within a minute
			b.deny(fmt.Sprintf("/usr/bin/%d", i), uint64(i+1), event.DenyStood)
			time.Sleep(13 * time.Second)
		}
		b.want(t, "")
		time.Sleep(2 * time.Minute)
		b.Brake.mu.Lock()
		defer b.Brake.mu.Unlock()
		if w := b.products["p"]; !w.empty() || len(w.rate.samples) != 0 {
			t.Errorf("after two minutes of quiet it remembers %d files, %d samples", len(w.files), len(w.rate.samples))
		}
	})
}

func TestWhatCannotBeLookedUpCountsAsAPackages(t *testing.T) {
	t.Parallel()
	run(t, Limits{}, func(t *testing.T, b *bench) {
		b.unknown = true
		for i := range 6 {
			b.deny(fmt.Sprintf("/opt/%d", i), uint64(i+1), event.DenyStood)
		}
		time.Sleep(4 * time.Second)
		b.want(t, "") // the package database may be loading
		time.Sleep(3 * time.Second)
		b.want(t, TooManyPackageFiles)
	})
	run(t, Limits{}, func(t *testing.T, b *bench) {
		b.unknown = true
		for i := range 6 {
			b.deny(fmt.Sprintf("/opt/%d", i), uint64(i+1), event.DenyStood)
		}
		time.Sleep(2 * time.Second)
		b.mu.Lock()
		b.unknown = false
		b.mu.Unlock()
		time.Sleep(10 * time.Second)
		b.want(t, "")
	})
}

func TestCriticalFiles(t *testing.T) {
	t.Parallel()
	run(t, Limits{}, func(t *testing.T, b *bench) {
		degraded := func() bool {
			for _, e := range b.registry.List() {
				if e.Component == "product.p.denies" && e.Status == health.Degraded {
					return strings.Contains(e.Summary, "/usr/bin/dpkg")
				}
			}
			return false
		}
		b.deny("/usr/bin/dpkg", 1, event.DenyCritical)
		b.deny("/usr/bin/dpkg", 1, event.DenyCritical)
		synctest.Wait()
		if !degraded() {
			t.Errorf("health does not name the file: %+v", b.registry.List())
		}
		b.want(t, "")
		time.Sleep(2 * time.Minute)
		if degraded() {
			t.Error("health names it for ever")
		}
		for i := range 3 {
			b.want(t, "")
			b.deny("/usr/bin/dpkg", uint64(i+1), event.DenyCritical)
		}
		b.want(t, TooManyCritical)
		if len(b.findings) != 5 {
			t.Fatalf("%d findings of 5 denies", len(b.findings))
		}
		want := &event.FindingDetail{
			Product: "p", Rule: RuleCritical, Title: b.findings[0].Finding.Title, Severity: event.High, QuestionID: 1, Action: "would_deny",
			File: event.File{Path: "/usr/bin/dpkg", Dev: 1, Ino: 1, Mode: 0o100755}, Target: event.ProcessKey{PID: 7, Start: 1},
			Fields: map[string]string{"release": "1.0-aa", "asked": "exec"},
		}
		if d := cmp.Diff(want, b.findings[0].Finding); d != "" {
			t.Error(d)
		}
	})
}

func TestBrakedUntilReleased(t *testing.T) {
	t.Parallel()
	run(t, Limits{}, func(t *testing.T, b *bench) {
		if err := b.Release("p"); !errors.Is(err, ErrNotBraked) {
			t.Errorf("release of a product that is not braked: %v", err)
		}
		for i := range 6 {
			b.deny(fmt.Sprintf("/usr/bin/%d", i), uint64(i+1), event.DenyStood)
		}
		b.want(t, TooManyPackageFiles)
		for i := range 40 {
			b.deny(fmt.Sprintf("/usr/bin/%d", i), uint64(i+1), event.DenyBraked)
		}
		time.Sleep(time.Hour)
		b.Joined("p", "2.0-bb", 0, 0) // another release releases nothing
		b.want(t, TooManyPackageFiles)
		got := b.List()[0]
		want := Braked{Denies: 41, Record: Record{
			Product: "p", Release: "1.0-aa", Rule: TooManyPackageFiles, Since: got.Since, Reason: got.Reason,
			Files: []string{"/usr/bin/0", "/usr/bin/1", "/usr/bin/2", "/usr/bin/3", "/usr/bin/4", "/usr/bin/5"},
		}}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if len(b.findings) != 41 || b.findings[0].Finding.Rule != RuleBrake {
			t.Errorf("%d findings of 41 denies that did not count", len(b.findings))
		}
		if err := b.Release("p"); err != nil {
			t.Fatal(err)
		}
		b.want(t, "")
		for i := range 5 {
			b.deny(fmt.Sprintf("/usr/bin/%d", i), uint64(i+1), event.DenyStood)
		}
		b.want(t, "") // nothing was held against it
		b.deny("/usr/bin/x", 99, event.DenyStood)
		b.want(t, TooManyPackageFiles)
		if err := b.Forget("p"); err != nil {
			t.Fatal(err)
		}
		b.want(t, "")
	})
}

func TestLimitsOfAProduct(t *testing.T) {
	t.Parallel()
	run(t, Limits{}, func(t *testing.T, b *bench) {
		b.Joined("p", "1.0-aa", 50, 60)
		for i := range 50 {
			b.deny(fmt.Sprintf("/usr/bin/%d", i), uint64(i+1), event.DenyStood)
		}
		b.want(t, "")
		b.Joined("p", "1.0-aa", 0, 0) // the grants were taken back
		b.deny("/usr/bin/1", 2, event.DenyStood)
		b.want(t, TooManyPackageFiles)
	})
}

// TestTheLimitIsExact: what is beyond a limit does not stand, not even before anybody has looked at it.
func TestTheLimitIsExact(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		path string
		want int
	}{
		"files_of_users":    {"/home/u/%d", 20},
		"files_of_packages": {"/usr/bin/%d", 5},
		"not_looked_up_yet": {"/opt/%d", 5}, // nobody runs that would look
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, filepath.Join(t.TempDir(), "brake.json"), Limits{})
			stood := 0
			for i := range 1000 {
				if b.deny(fmt.Sprintf(test.path, i), uint64(i+1), event.DenyStood) {
					stood++
				}
			}
			if stood != test.want {
				t.Errorf("%d denies stood, want %d", stood, test.want)
			}
			if n := len(b.products["p"].files); n > 21 {
				t.Errorf("%d files are remembered", n)
			}
		})
	}
}

// TestAFileThatTurnsOutToBeNobodysIsDeniedTheNextTime: at the limit of packages' files a file of root's is let through
// once, until it is known that no package owns it.
func TestAFileThatTurnsOutToBeNobodysIsDeniedTheNextTime(t *testing.T) {
	t.Parallel()
	run(t, Limits{}, func(t *testing.T, b *bench) {
		for i := range 5 {
			if !b.deny(fmt.Sprintf("/usr/bin/%d", i), uint64(i+1), event.DenyStood) {
				t.Errorf("file %d is within the limit", i)
			}
		}
		if b.deny("/opt/x", 100, event.DenyStood) {
			t.Error("a sixth file that may be a package's was denied")
		}
		if !b.deny("/home/u/x", 101, event.DenyStood) {
			t.Error("a file that cannot be a package's was not denied")
		}
		b.want(t, "")
		if !b.deny("/opt/x", 100, event.DenyStood) {
			t.Error("a file that no package owns was not denied")
		}
		if b.deny("/usr/bin/x", 102, event.DenyStood) {
			t.Error("a sixth file of packages was denied")
		}
		b.want(t, TooManyPackageFiles)
	})
}

// TestManyAtOnce denies from many goroutines while the judge works: nothing may be missed.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, filepath.Join(t.TempDir(), "brake.json"), Limits{})
	during(t, b, func() {
		done := make(chan bool)
		const products = 8
		for p := range products {
			go func() {
				for i := range 2000 {
					b.say(event.Denial{
						Product: fmt.Sprintf("p%d", p), Fate: event.DenyStood, Asked: event.Open, Time: boot(),
						File: event.File{Path: fmt.Sprintf("/home/%d", i), Dev: 1, Ino: uint64(i%(20+p%2) + 1), UID: 1000},
					})
				}
				done <- true
			}()
		}
		for range products {
			<-done
		}
		deadline := time.Now().Add(time.Minute)
		for len(b.List()) < products/2 && time.Now().Before(deadline) {
			<-time.After(time.Millisecond)
		}
		for _, r := range b.List() {
			if n := r.Product[1] - '0'; n%2 == 0 {
				t.Errorf("%s is braked by 20 files", r.Product)
			}
		}
		if n := len(b.List()); n != products/2 {
			t.Errorf("%d of %d products are braked", n, products/2)
		}
	})
}

func TestSurvivesAnAgent(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "brake.json")
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, file, Limits{})
		during(t, b, func() {
			for i := range 6 {
				b.deny(fmt.Sprintf("/usr/bin/%d", i), uint64(i+1), event.DenyStood)
			}
			b.want(t, TooManyPackageFiles)
		})
		next := newBench(t, file, Limits{})
		next.want(t, TooManyPackageFiles)
		if d := cmp.Diff(b.List()[0].Record, next.List()[0].Record); d != "" {
			t.Error(d)
		}
		if err := next.Release("p"); err != nil {
			t.Fatal(err)
		}
		newBench(t, file, Limits{}).want(t, "")
	})
}

func entry(r *health.Registry, component string) health.Entry {
	for _, e := range r.List() {
		if e.Component == component {
			return e
		}
	}
	return health.Entry{}
}

func TestCorruptFileIsNamedAndNobodyIsBraked(t *testing.T) {
	t.Parallel()
	good := `{"version":1,"braked":[{"product":"p","release":"1","since":"2026-01-02T03:04:05Z","rule":"files","reason":"why"}]}`
	for name, text := range map[string]string{
		"empty": "", "torn": good[:len(good)/2], "other_version": strings.Replace(good, `"version":1`, `"version":2`, 1),
		"a_name_that_is_none": strings.Replace(good, `"p"`, `"../p"`, 1), "without_reason": strings.Replace(good, "why", "", 1),
		"huge": good + strings.Repeat(" ", maxState),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "brake.json")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			b := newBench(t, file, Limits{})
			if len(b.List()) != 0 || len(b.braked) != 0 {
				t.Errorf("braked: %+v", b.List())
			}
			e := entry(b.registry, "brake.state")
			if e.Status != health.Degraded || !strings.Contains(e.Summary, file) || !strings.Contains(e.Remedy, file+badSuffix) {
				t.Errorf("health says %+v", e)
			}
			if kept, err := os.ReadFile(file + badSuffix); err != nil || string(kept) != text {
				t.Errorf("the file was not kept: %v", err)
			}
		})
	}
}

func TestFullDiskStillBrakes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "absent", "brake.json") // as unwritable as a full disk, for root too
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, file, Limits{})
		during(t, b, func() {
			for i := range 6 {
				b.deny(fmt.Sprintf("/usr/bin/%d", i), uint64(i+1), event.DenyStood)
			}
			b.want(t, TooManyPackageFiles)
			if e := entry(b.registry, "brake.state"); e.Status != health.Failed || e.Remedy == "" {
				t.Errorf("health says %+v", e)
			}
			if err := b.Release("p"); err == nil {
				t.Error("a release that is not remembered was said to be")
			}
			b.want(t, "")
		})
	})
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"version":1,"braked":[]}`,
		`{"version":1,"braked":[{"product":"p","release":"1.0-aa","since":"2026-01-02T03:04:05Z","rule":"files","reason":"why","files":["/usr/bin/x"]}]}`,
		`{"version":1,"braked":[{"product":"p","reason":"x"},{"product":"p","reason":"x"}]}`,
		`{"version":2}`, `[]`, ``, `{"version":1,"braked":[{"product":"../../etc"}]}`, "\x00\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		records, err := parse(text)
		if err != nil {
			return
		}
		file := filepath.Join(t.TempDir(), "brake.json")
		if err := write(file, stateFile{Version: stateVersion, Braked: records}); err != nil {
			t.Fatal(err)
		}
		kept, err := readState(file)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(kept)
		if err != nil {
			t.Fatalf("what was read is refused when it is written: %v", err)
		}
		if len(again) != len(records) {
			t.Errorf("%d records became %d", len(records), len(again))
		}
	})
}

func BenchmarkAdmit(b *testing.B) {
	brake, err := New(Config{
		File: filepath.Join(b.TempDir(), "brake.json"), Now: boot, Owned: func(*event.File) (bool, bool) { return false, true },
		Restrain: func(string, bool, string) {}, Emit: func(*event.Event) {}, Wanted: func() bool { return false },
	})
	if err != nil {
		b.Fatal(err)
	}
	d := event.Denial{Product: "p", Fate: event.DenyStood, Asked: event.Exec, Time: boot(), File: event.File{Path: "/x", Dev: 1, Ino: 1}}
	b.ReportAllocs()
	for b.Loop() {
		if !brake.Admit(&d) {
			b.Fatal("not admitted")
		}
	}
}
