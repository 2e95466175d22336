package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"

	"github.com/google/go-cmp/cmp"
)

func TestGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 3 {
		r := run(t, dir, nil)
		r.commit(KindOperator, map[string]any{"number": i})
		r.Note(KindAgent, map[string]any{"state": "stopped"})
		r.stop()
	}
	if report := verified(t, dir); report.Segments != 1 || report.Lines != 7 || !report.Complete {
		t.Errorf("after three runs: %+v", report)
	}
	for i, l := range lines(t, dir, KindOperator) {
		if want := `{"number":` + string(rune('0'+i)) + `}`; string(l.Fields) != want || l.BootID != "b00t" || l.Boot == 0 || time.Since(l.Time) > time.Hour {
			t.Errorf("line %d: %+v, fields %s", i, l, l.Fields)
		}
	}
}

// TestTornEndIsNamed: what a crash cut stays where it is, and the next segment says what it was.
func TestTornEndIsNamed(t *testing.T) {
	t.Parallel()
	dir, file, head := small(t)
	whole := read(t, file)
	const cut = `{"seq":7,"time":"2026`
	write(t, file, append(bytes.Clone(whole), cut...))
	if r := verified(t, dir); r.Tail != int64(len(cut)) {
		t.Errorf("before the next start: tail of %d bytes, want %d", r.Tail, len(cut))
	}
	r := run(t, dir, nil)
	r.commit(KindOperator, map[string]any{"number": 9})
	r.stop()
	if e := r.entry(ChainComponent); e.Status != 0 {
		t.Errorf("a crash is taken for somebody's doing: %+v", e)
	}
	report := verified(t, dir, head)
	if diff := cmp.Diff([]Tear{{Segment: filepath.Base(file), Bytes: int64(len(cut))}}, report.Torn); diff != "" {
		t.Errorf("torn (-want +got):\n%s", diff)
	}
	if got := read(t, file); !bytes.HasSuffix(got, []byte(cut)) {
		t.Error("the torn end is gone")
	}
	for name, end := range map[string]string{"edited": strings.Replace(cut, "7", "8", 1), "removed": "", "made_a_line": cut + "\n"} {
		write(t, file, append(bytes.Clone(whole), end...))
		t.Logf("%s: %s", name, faults(t, dir))
	}
}

// TestSomebodyElseWrites: what is done to the journal under the agent's hands is noticed with the next line, and recorded.
func TestSomebodyElseWrites(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(file string) error
		want string
	}{
		{"cut", func(f string) error { return os.Truncate(f, 100) }, "it was cut"},
		{"added", func(f string) error {
			h, err := os.OpenFile(f, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = h.WriteString("{}\n")
			return errors.Join(err, h.Close())
		}, "bytes were added"},
		{"removed", os.Remove, "it was removed"},
		{"replaced", func(f string) error { return os.WriteFile(f+".x", nil, 0o600) }, "it was removed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := run(t, dir, nil)
			r.commit(KindOperator, map[string]any{"number": 1})
			file := files(t, dir)[0]
			if err := c.do(file); err != nil {
				t.Fatal(err)
			}
			if c.name == "replaced" {
				if err := os.Rename(file+".x", file); err != nil {
					t.Fatal(err)
				}
			}
			r.commit(KindOperator, map[string]any{"number": 2})
			r.stop()
			if e := r.entry(ChainComponent); e.Status != health.Failed || !strings.Contains(e.Summary, c.want) || e.Remedy == "" {
				t.Errorf("health says %+v, want %q", e, c.want)
			}
			if got := faults(t, dir); !strings.Contains(got, "the agent noticed") {
				t.Errorf("found %s", got)
			}
		})
	}
}

// TestEditBetweenTwoRunsIsNotHealed: the agent names it, goes on in a new segment, and the fault stays.
func TestEditBetweenTwoRunsIsNotHealed(t *testing.T) {
	t.Parallel()
	dir, file, _ := small(t)
	edit(t, file, func(l [][]byte) [][]byte {
		l[3] = bytes.Replace(l[3], []byte("ProductGrant"), []byte("ProductQuiet"), 1)
		return l
	})
	r := run(t, dir, nil)
	r.commit(KindOperator, map[string]any{"number": 9})
	r.stop()
	if e := r.entry(ChainComponent); e.Status != health.Failed {
		t.Errorf("health says %+v", e)
	}
	if got := faults(t, dir); !strings.Contains(got, ":4: it was changed") {
		t.Errorf("found %s", got)
	}
}

// TestNothingOfTheLastSegmentCanBeRead: the agent works and the journal goes on.
func TestNothingOfTheLastSegmentCanBeRead(t *testing.T) {
	t.Parallel()
	dir, file, _ := small(t)
	write(t, file, bytes.Repeat([]byte{0}, 5000))
	r := run(t, dir, nil)
	r.commit(KindOperator, map[string]any{"number": 9})
	r.stop()
	faults(t, dir)
	if n := len(files(t, dir)); n != 2 {
		t.Errorf("%d segments, want the destroyed one and a new one", n)
	}
}

// TestQueueThatIsFullIsSaid: nobody waits, and what had no room is a line.
func TestQueueThatIsFullIsSaid(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), Health: health.NewRegistry(), Log: quiet(), Queue: 10, Patience: time.Millisecond}
	j, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 25 {
		j.Note(KindOperator, map[string]any{})
	}
	if err := j.Commit(KindOperator, nil); !errors.Is(err, ErrLate) {
		t.Errorf("Commit with nobody at the other end: %v", err)
	}
	if s := j.Stats(); s.Lost != 16 {
		t.Errorf("%d are counted as lost, want 16", s.Lost)
	}
	r := start(t, j, cfg.Health)
	r.commit(KindOperator, map[string]any{})
	r.stop()
	verified(t, cfg.Dir)
	var f lostFields
	l := lines(t, cfg.Dir, KindLost)
	if len(l) != 1 || l[0].Decode(&f) != nil {
		t.Fatalf("lines of what was lost: %v", l)
	}
	if diff := cmp.Diff([]lossCount{{lossKey{KindOperator, causeQueue, ""}, 16}}, f.Counts, cmp.AllowUnexported(lossCount{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := j.Commit(KindOperator, nil); !errors.Is(err, ErrEnded) {
		t.Errorf("Commit after the end: %v", err)
	}
}

// deny is the verdict event of a deny.
func deny(path string) *event.Event {
	return &event.Event{
		Kind: event.Verdict, Time: 1,
		Process: &event.Process{Key: event.ProcessKey{PID: 7, Start: 8}, Credentials: event.Credentials{UID: 1000, EUID: 1001}, Executable: event.File{Path: "/bin/sh"}},
		Verdict: &event.VerdictDetail{
			QuestionID: 5, Asked: event.Exec, Decision: event.Decision{Reason: event.ByProducts}, Latency: 9,
			File: event.File{Path: path, Dev: 1, Ino: 2, Size: 3, UID: 4},
			Answers: []event.Answer{
				{Product: "allowlist", Outcome: event.Answered}, {Product: "clamav", Outcome: event.Unneeded},
				{Product: "careful", Outcome: event.Answered, Shadow: true}, {Product: "bold", Outcome: event.Overridden, Allow: true},
			},
		},
	}
}

// TestFloodOfDeniesIsSummedUp: whoever can cause denies cannot push out what an operator did, and every deny is counted.
func TestFloodOfDeniesIsSummedUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := run(t, dir, func(c *Config) { c.MaxBytes = 2 << 20 })
	r.commit(KindOperator, map[string]any{"method": "ProductGrant"})
	const many = 50_000
	for range many {
		r.Observe(deny(strings.Repeat("\x01", 4000)))
	}
	r.stop()
	report := verified(t, dir)
	if !report.Complete || len(lines(t, dir, KindOperator)) != 1 {
		t.Errorf("the flood made the journal forget: %+v", report)
	}
	sum := uint64(len(lines(t, dir, KindDeny)))
	if sum == 0 || sum > 1000 {
		t.Errorf("%d denies were written one by one", sum)
	}
	for _, l := range lines(t, dir, KindLost) {
		var f lostFields
		if err := l.Decode(&f); err != nil {
			t.Fatal(err)
		}
		for _, c := range f.Counts {
			if c.Kind != KindDeny || c.Product != "allowlist" {
				t.Errorf("counted as %+v", c)
			}
			sum += c.Count
		}
	}
	if sum != many {
		t.Errorf("%d denies are accounted for, want %d", sum, many)
	}
}

func TestWhatIsObserved(t *testing.T) {
	t.Parallel()
	overridden := deny("/etc/x")
	overridden.Verdict.Decision = event.Decision{Allow: true, Reason: event.ByProducts}
	overridden.Verdict.Answers = []event.Answer{{Product: "bold", Outcome: event.Overridden, Allow: true}}
	missed := deny("/etc/x")
	missed.Verdict.Decision.Reason = event.ByDefault
	missed.Verdict.Answers = []event.Answer{{Product: "slow", Outcome: event.Missed}}
	shared := deny("/etc/x")
	shared.Verdict = &event.VerdictDetail{Asked: event.Open, Decision: event.Decision{Reason: event.ByShare}}
	allowed := deny("/etc/x")
	allowed.Verdict.Decision.Allow, allowed.Verdict.Answers = true, nil
	for _, c := range []struct {
		name  string
		event *event.Event
		kind  Kind
		want  string
	}{
		{"deny", deny("/tmp/\xff"), KindDeny, `{"question":5,"asked":"exec","file":{"path":"/tmp/�","dev":1,"ino":2,"size":3,"uid":4},"process":{"pid":7,"start":8,"uid":1000,"euid":1001,"executable":"/bin/sh"},"by":"products","products":["allowlist"],"overridden":["bold"],"latency":9}`},
		{"overridden", overridden, KindOverridden, `{"question":5,"asked":"exec","file":{"path":"/etc/x","dev":1,"ino":2,"size":3,"uid":4},"process":{"pid":7,"start":8,"uid":1000,"euid":1001,"executable":"/bin/sh"},"by":"products","overridden":["bold"],"latency":9}`},
		{"deny_by_silence", missed, KindDeny, `{"question":5,"asked":"exec","file":{"path":"/etc/x","dev":1,"ino":2,"size":3,"uid":4},"process":{"pid":7,"start":8,"uid":1000,"euid":1001,"executable":"/bin/sh"},"by":"default","products":["slow"],"latency":9}`},
		{"deny_that_was_shared", shared, KindDeny, `{"asked":"open","file":{"path":"","dev":0,"ino":0,"size":0,"uid":0},"process":{"pid":7,"start":8,"uid":1000,"euid":1001,"executable":"/bin/sh"},"by":"share","latency":0}`},
		{"allow", allowed, "", ""},
		{"exec", &event.Event{Kind: event.Exec, Exec: &event.ExecDetail{}}, "", ""},
		{"product", &event.Event{Kind: event.Product, Product: &event.ProductDetail{Product: "p", Release: "1", State: "failed", Authority: "off", Reason: "why", Restarts: 3}}, KindProduct, `{"product":"p","release":"1","state":"failed","authority":"off","reason":"why","restarts":3}`},
		{"health", &event.Event{Kind: event.Health, Health: &event.HealthDetail{Component: "c", Status: "degraded", Summary: "s", Remedy: "r"}}, KindHealth, `{"component":"c","status":"degraded","summary":"s","remedy":"r"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := run(t, dir, nil)
			r.Observe(c.event)
			r.stop()
			all := lines(t, dir, "")[1:] // behind the segment's own
			if c.kind == "" {
				if len(all) > 0 {
					t.Errorf("it wrote %s", all[0].Fields)
				}
				return
			}
			if len(all) != 1 || all[0].Kind != c.kind || string(all[0].Fields) != c.want {
				t.Fatalf("it wrote %+v\n%s\nwant %s", all, all[0].Fields, c.want)
			}
			if !json.Valid(all[0].Fields) {
				t.Error("not JSON")
			}
		})
	}
}

// TestLinesAreBounded: nothing that is handed in makes a line that the journal's own reader refuses.
func TestLinesAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := run(t, dir, nil)
	for _, fields := range []any{
		map[string]any{"long": strings.Repeat("\x00", 100_000)}, "no object", nil, 5, func() {}, map[string]any{"f": func() {}}, make(chan int),
	} {
		r.commit(KindOperator, fields)
	}
	r.stop()
	verified(t, dir)
	if n := len(lines(t, dir, KindOperator)); n != 7 {
		t.Errorf("%d lines, want 7", n)
	}
}

// TestReaderFollows: a reader that comes back gets what was added, over the border of segments too.
func TestReaderFollows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := run(t, dir, func(c *Config) { c.MaxBytes, c.SegmentBytes = 1<<20, 2*maxLine })
	reader := NewReader(dir)
	got, want := 0, 0
	for range 20 {
		for range 2 {
			r.commit(KindOperator, map[string]any{"text": strings.Repeat("x", 15_000)})
			want++
		}
		err := reader.Read(func(l *Line, text []byte) error {
			if again, err := ParseLine(text); err != nil || again.Hash != l.Hash {
				t.Errorf("text and line differ: %v", err)
			}
			if l.Kind == KindOperator {
				got++
			}
			return nil
		}, func(f Fault) { t.Error(f) })
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("%d lines read of %d", got, want)
		}
	}
	if len(files(t, dir)) < 3 {
		t.Error("there was no border to cross")
	}
}
