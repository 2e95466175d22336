package product

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bailey/agent/product/contain"
	"bailey/agent/product/grant"
	"bailey/agent/product/manifest"
)

func TestCrashes(t *testing.T) {
	t.Parallel()
	start := time.Now()
	type end struct {
		at, up time.Duration
		low    time.Duration // the wait is at least that, and at most a fifth more
		loop   bool
	}
	tests := []struct {
		name string
		ends []end
	}{
		{"doubles", []end{{0, 0, 100 * time.Millisecond, false}, {1 * time.Second, 0, 200 * time.Millisecond, false}, {2 * time.Second, 0, 400 * time.Millisecond, false}, {3 * time.Second, 0, 800 * time.Millisecond, false}}},
		{"five_in_sixty_seconds_is_a_loop", []end{{0, 0, 100 * time.Millisecond, false}, {10 * time.Second, 0, 0, false}, {20 * time.Second, 0, 0, false}, {30 * time.Second, 0, 0, false}, {59 * time.Second, 0, 0, true}}},
		{"five_in_more_is_none", []end{{0, 0, 0, false}, {10 * time.Second, 0, 0, false}, {20 * time.Second, 0, 0, false}, {30 * time.Second, 0, 0, false}, {61 * time.Second, 0, 0, false}}},
		{"starts_anew_after_a_good_run", []end{{0, 0, 100 * time.Millisecond, false}, {time.Second, 0, 200 * time.Millisecond, false}, {40 * time.Second, 31 * time.Second, 100 * time.Millisecond, false}}},
	}
	var hourly []end
	for i := range 10 {
		hourly = append(hourly, end{at: time.Duration(i) * time.Hour, up: 50 * time.Minute, loop: i == 9})
	}
	tests = append(tests, struct {
		name string
		ends []end
	}{"ten_in_a_day_is_a_loop", hourly})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := crashes{cfg: Backoff{}.withDefaults()}
			for i, e := range tt.ends {
				wait, loop := c.ended(start.Add(e.at), e.up)
				if loop != e.loop || e.low > 0 && (wait < e.low || wait > e.low*6/5+1) {
					t.Errorf("end %d: got %v, %v; want %v, %v", i, wait, loop, e.low, e.loop)
				}
			}
		})
	}
}

func TestCrashes_wait_is_bounded(t *testing.T) {
	t.Parallel()
	c := crashes{cfg: Backoff{Crashes: 1000, CrashesDay: 1000}.withDefaults()}
	var last time.Duration
	for i := range 50 {
		last, _ = c.ended(time.Now().Add(time.Duration(i)*time.Second), 0)
	}
	if last < 10*time.Second || last > 12*time.Second {
		t.Errorf("got %v, want 10 s and at most a fifth more", last)
	}
}

func TestAppendLine_shows_what_a_terminal_would_obey(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 1, 2, 3, 4_000_000, time.UTC)
	for in, want := range map[string]string{
		"plain\ttext":             "plain\ttext",
		"\x1b]0;title\x07":        `\x1b]0;title\x07`,
		"ü\u202eevil":             `ü\xe2\x80\xaeevil`,
		"bad utf-8 \xff\xfe":      `bad utf-8 \xff\xfe`,
		"\r2026-01-01T00:00 fake": `\x0d2026-01-01T00:00 fake`,
		"\ufffd":                  "\ufffd",
	} {
		if got := string(appendLine(nil, at, "out", []byte(in))); got != "2026-11-23T01:02:03.004Z out "+want+"\n" {
			t.Errorf("%q: got %q", in, got)
		}
	}
}

func TestLogFile_keeps_within_its_limit_and_counts_what_it_drops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "log")
		l := newLogFile(path, 64<<10)
		const lines = 3000
		text := strings.Repeat("x", 999) + "\n"
		if err := l.pump(strings.NewReader(strings.Repeat(text, lines)), "out"); err != nil {
			t.Fatal(err)
		}
		// A burst of 1 MiB, and what the flood's own pace lets in while it is read away.
		kept := uint64(lines) - l.Dropped()
		if kept < 1000 || kept > 1300 {
			t.Errorf("kept %d of %d lines", kept, lines)
		}
		var total int64
		for _, p := range []string{path, path + ".1"} {
			st, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			total += st.Size()
		}
		if total > 64<<10 {
			t.Errorf("%d bytes on disk", total)
		}
		time.Sleep(10 * time.Second) // synctest: the bucket is full again
		if kept, err := l.line(time.Now(), "err", []byte("after")); !kept || err != nil {
			t.Errorf("got %v, %v", kept, err)
		}
		var out bytes.Buffer
		if err := l.read(t.Context(), false, func(b []byte) error { _, err := out.Write(b); return err }); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); !strings.Contains(got, "lines dropped: the product logs faster than 256 KiB/s\n") || !strings.HasSuffix(got, " err after\n") {
			t.Errorf("got …%s", got[max(0, len(got)-300):])
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestLogFile_follow_sees_every_line_once_across_a_rotation(t *testing.T) {
	t.Parallel()
	l := newLogFile(filepath.Join(t.TempDir(), "log"), 8<<10)
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	seen := make(chan struct{}, 1000)
	done := make(chan error, 1)
	go func() {
		done <- l.read(ctx, true, func(b []byte) error {
			out.Write(b)
			for range bytes.Count(b, []byte("\n")) {
				seen <- struct{}{}
			}
			return nil
		})
	}()
	for i := range 200 {
		if _, err := l.line(time.Now(), "out", fmt.Appendf(nil, "line %d", i)); err != nil {
			t.Fatal(err)
		}
		<-seen
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if !strings.HasSuffix(line, fmt.Sprintf(" line %d", i)) {
			t.Fatalf("line %d: %s", i, line)
		}
	}
	if l.generation == 0 {
		t.Error("it never rotated")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestLogFile_a_reader_that_fails_ends(t *testing.T) {
	t.Parallel()
	l := newLogFile(filepath.Join(t.TempDir(), "log"), 64<<10)
	if _, err := l.line(time.Now(), "out", []byte("x")); err != nil {
		t.Fatal(err)
	}
	want := errors.New("gone")
	if err := l.read(t.Context(), true, func([]byte) error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestRecord_round_trip(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "p")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	g, err := grant.Parse([]string{"see:exec", "live", "memory:64MiB"})
	if err != nil {
		t.Fatal(err)
	}
	want := Record{Name: "p", Release: "1-abc", Previous: "0-abc", PreviousGrants: &g, UID: 7, Enabled: true, Grants: g, Settings: map[string]string{"a": "b"}, Installed: time.Unix(5, 0).UTC()}
	if err := writeRecord(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := readRecord(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Release != want.Release || got.UID != 7 || !got.PreviousGrants.Live || got.Grants.Limits != want.Grants.Limits || got.Settings["a"] != "b" {
		t.Errorf("got %+v", got)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left beside the record: %v, %v", entries, err)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"name":"p","release":"1-abc","uid":5,"grants":["see:exec","memory:64MiB"],"settings":{"a":"b"}}`))
	f.Add([]byte(`{"name":"p","removed":true,"uid":5}`))
	f.Add([]byte(`{"name":"p","release":"..","uid":5}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b, "p")
		if err != nil {
			return
		}
		if r.Name != "p" || r.UID == 0 || !r.Removed && filepath.Join("/r", r.Release) == "/r" || strings.Contains(r.Release+r.Previous, "/") {
			t.Fatalf("accepted %+v", r)
		}
	})
}

// What an earlier agent of another version left, or a bug, is refused and harms nobody.
func FuzzParseLife(f *testing.F) {
	f.Add([]byte(`{"product":"p","record":"ab","manifest":"cd","init":7,"pid":8,"began":5,"since":"2026-01-02T03:04:05Z","restarts":1,"ends":[1,2],"delay":100}`))
	f.Add([]byte(`{"init":1}`))
	f.Add([]byte(`{"init":2,"began":18446744073709551615}`))
	f.Add([]byte(`{"init":2,"ends":[18446744073709551615]}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLife(b)
		if err != nil {
			return
		}
		c := crashes{cfg: Backoff{}.withDefaults()}
		c.inherit(l)
		if wait, _ := c.ended(time.Now(), time.Second); wait < 0 || l.Init <= 1 || ago(l.Began).After(time.Now()) {
			t.Fatalf("accepted %+v", l)
		}
	})
}

func TestMemory_is_the_same_for_the_next_agent(t *testing.T) {
	t.Parallel()
	m, err := newMemory("p")
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	want := life{Product: "p", Record: "r", Manifest: "m", Init: 7, PID: 8, Began: 9, Since: time.Unix(5, 0).UTC(), Restarts: 3, Ends: []uint64{1, 2}, Delay: time.Second}
	for _, notes := range [][]contain.Note{{{Component: "long", Summary: strings.Repeat("x", 10_000)}}, nil} { // the second is shorter
		want.Notes = notes
		if err := m.write(want); err != nil {
			t.Fatal(err)
		}
	}
	m.events().Store(11)
	m.questions().Store(12)
	fd, err := duplicate(m.file)
	if err != nil {
		t.Fatal(err)
	}
	other, err := openMemory(os.NewFile(uintptr(fd), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	got, err := other.read()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" || other.events().Load() != 11 || other.questions().Load() != 12 {
		t.Errorf("(-want +got):\n%s%d events, %d questions", diff, other.events().Load(), other.questions().Load())
	}
	m.word(0).Store(1)
	if fd, err = duplicate(m.file); err != nil {
		t.Fatal(err)
	}
	if _, err := openMemory(os.NewFile(uintptr(fd), "copy")); err == nil {
		t.Error("the memory of another version was taken")
	}
}

func TestCrashes_go_on_with_the_next_agent(t *testing.T) {
	t.Parallel()
	cfg := Backoff{Crashes: 3}.withDefaults()
	before := crashes{cfg: cfg}
	for range 2 {
		if _, loop := before.ended(time.Now(), time.Second); loop {
			t.Fatal("a loop after two ends")
		}
	}
	l := life{Init: 7, Delay: before.delay}
	for _, e := range before.ends {
		l.Ends = append(l.Ends, sinceBoot(e))
	}
	after := crashes{cfg: cfg}
	after.inherit(l)
	if _, loop := after.ended(time.Now(), time.Second); !loop {
		t.Error("the third end within a minute is no crash loop")
	}
}

// Manager.mu may be held by one who wants a unit's next: nobody waits for it while holding that.
func TestUnderstudyIsJudgedWithoutADeadlock(t *testing.T) {
	t.Parallel()
	m := &Manager{}
	u := &unit{m: m, manifest: &manifest.Manifest{}, present: &run{}, status: Status{State: Running}}
	m.mu.Lock()
	done := make(chan error)
	go func() { done <- u.takesUnderstudy(&Record{}, &manifest.Manifest{}) }()
	for range 50 {
		<-time.After(time.Millisecond)
		if !u.mu.TryLock() {
			t.Fatal("the unit is locked by one who waits for the manager")
		}
		u.mu.Unlock()
	}
	m.mu.Unlock()
	if err := <-done; !errors.Is(err, errNotRunning) {
		t.Errorf("of a manager that does not run: %v", err)
	}
}
