package recorder

import (
	"slices"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/agent/product/link"

	"github.com/google/go-cmp/cmp"
)

type nothing struct{}

func (nothing) AppendEvent(dst []byte, _ *event.Event) []byte { return dst }

// Times of the story, in seconds since boot.
func sec(n uint64) uint64 { return n * 1e9 }

var (
	initKey   = event.ProcessKey{PID: 1, Start: 1}
	shellKey  = event.ProcessKey{PID: 10, Start: 100}
	makeKey   = event.ProcessKey{PID: 11, Start: 110}
	ccKey     = event.ProcessKey{PID: 12, Start: 120}
	reusedKey = event.ProcessKey{PID: 10, Start: 900} // the shell's pid again
)

func proc(key, parent event.ProcessKey) *event.Process {
	return &event.Process{Key: key, Parent: parent}
}

// story is a shell that runs make, which runs cc; then its pid is used again.
func story() []*event.Event {
	shell, mk, cc := proc(shellKey, initKey), proc(makeKey, shellKey), proc(ccKey, makeKey)
	return []*event.Event{
		{Seq: 1, Kind: event.Fork, Time: sec(100), Process: shell, Fork: &event.ForkDetail{Child: mk}},
		{Seq: 2, Kind: event.Exec, Time: sec(101), Process: mk, Exec: &event.ExecDetail{Argv: []string{"make"}}},
		{Seq: 3, Kind: event.Fork, Time: sec(102), Process: mk, Fork: &event.ForkDetail{Child: cc}},
		{Seq: 4, Kind: event.Verdict, Time: sec(103), Process: cc, Verdict: &event.VerdictDetail{
			QuestionID: 7, Asked: event.Exec, File: event.File{Path: "/usr/bin/cc\xff", Ino: 5}, Latency: sec(2), Decision: event.Decision{Allow: true, Reason: event.ByProducts},
			Answers: []event.Answer{{Product: "allowlist", Outcome: event.Answered, Allow: true, Latency: 5}},
		}},
		{Seq: 5, Kind: event.Exec, Time: sec(104), Process: cc, Exec: &event.ExecDetail{Argv: []string{"cc"}}},
		{Seq: 6, Kind: event.Exit, Time: sec(105), Process: proc(ccKey, initKey), Exit: &event.ExitDetail{}}, // make was gone
		{Seq: 7, Kind: event.Health, Time: sec(106), Health: &event.HealthDetail{Component: "c", Status: "ok"}},
		{Seq: 8, Kind: event.Finding, Time: sec(107), Finding: &event.FindingDetail{Product: "p", Target: makeKey}},
		{Seq: 9, Kind: event.Exec, Time: sec(900), Process: proc(reusedKey, initKey), Exec: &event.ExecDetail{Argv: []string{"sh"}}},
	}
}

// zero is when the boot of the story began.
var zero = time.Unix(1_000_000, 0)

// fixed stops the clocks after the story.
func fixed(r *Recorder) {
	r.cfg.Now = func() uint64 { return sec(1000) }
	r.cfg.Wall = func() time.Time { return zero.Add(1000 * time.Second) }
	r.cfg.Started = sec(1)
}

func TestQueries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	record(t, dir, fixed, story()...)
	at := func(s int) time.Time { return zero.Add(time.Duration(s) * time.Second) }
	for _, tc := range []struct {
		name string
		q    Query
		want []uint64
	}{
		{"all", Query{}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{"since", Query{Since: at(105)}, []uint64{6, 7, 8, 9}},
		{"until", Query{Until: at(102)}, []uint64{1, 2, 3}},
		{"between", Query{Since: at(102), Until: at(104)}, []uint64{3, 4, 5}},
		{"kinds", Query{Kinds: event.KindsOf(event.Verdict, event.Finding)}, []uint64{4, 8}},
		{"kind_that_is_not_there", Query{Kinds: event.KindsOf(event.Rename)}, nil},
		{"pid", Query{Process: event.ProcessKey{PID: 10}}, []uint64{1, 9}},
		{"key", Query{Process: shellKey}, []uint64{1}},
		{"fork_and_finding_of_a_process", Query{Process: makeKey}, []uint64{1, 2, 3, 8}},
		{"tree", Query{Process: shellKey, Tree: true}, []uint64{1, 2, 3, 4, 5, 6, 8}},
		{"tree_after_its_forks", Query{Process: shellKey, Tree: true, Since: at(104)}, []uint64{5, 6, 8}},
		{"tree_of_kinds", Query{Process: shellKey, Tree: true, Kinds: event.KindsOf(event.Verdict)}, []uint64{4}},
		{"nobody", Query{Process: event.ProcessKey{PID: 4711}}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			records, skips := history(t, dir, tc.q)
			if d := cmp.Diff(tc.want, seqs(records)); d != "" || len(skips) != 0 {
				t.Errorf("%s, skipped %v", d, skips)
			}
		})
	}
}

func TestEventsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	record(t, dir, fixed, story()...)
	r, err := Open(ReaderConfig{Dir: dir, Decoder: new(link.Codec)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []*event.Event
	for {
		e, err := Events{r}.Next()
		if err != nil {
			break
		}
		got = append(got, e)
	}
	want := story()
	for _, e := range want {
		if e.Exec != nil {
			e.Exec.Previous = e.Process.Key
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	q, ok := Asked(got[3])
	if !ok || q.ID != 7 || q.Kind != event.Exec || q.Time != sec(101) || q.PID != ccKey.PID || q.Process.Key != ccKey || q.File.Path != "/usr/bin/cc\xff" || q.FD != -1 {
		t.Errorf("question %+v", q)
	}
	if _, ok := Asked(got[0]); ok {
		t.Error("a fork is no question")
	}
}

// TestBlocksThatCannotMatterAreNotRead: a look at the last minutes does not read hours.
func TestBlocksThatCannotMatterAreNotRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := newBlock()
	if err != nil {
		t.Fatal(err)
	}
	ring := &ring{dir: dir, limit: 1 << 20, disk: realDisk{}, wall: func() int64 { return 0 }, retire: func(f file) { _ = f.Close() }}
	if err := ring.load(); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(50) {
		b.event(new(link.Codec), &event.Event{Kind: []event.Kind{event.Exec, event.Health}[i%2], Seq: i, Time: sec(i)})
		if err := ring.append(func(m marker) []byte { return b.seal(blockHeader{marker: m, index: i}) }); err != nil {
			t.Fatal(err)
		}
		b.reset()
	}
	ring.close()
	for _, tc := range []struct {
		q    Query
		want uint64
	}{
		{Query{}, 50},
		{Query{Since: time.Unix(45, 0)}, 5},
		{Query{Until: time.Unix(3, 0)}, 4},
		{Query{Kinds: event.KindsOf(event.Health)}, 25},
	} {
		r, err := Open(ReaderConfig{Dir: dir, Decoder: new(link.Codec), Query: tc.q})
		if err != nil {
			t.Fatal(err)
		}
		n := uint64(0)
		for {
			if _, err := r.Next(); err != nil {
				break
			}
			n++
		}
		r.Close()
		if n != tc.want || r.blocks != tc.want {
			t.Errorf("%+v: %d records from %d blocks, want %d", tc.q, n, r.blocks, tc.want)
		}
	}
}

// TestAClockThatJumps: the wall clock is set a day ahead between two blocks. The boot's last word counts, so that the hour
// before the jump is the hour before it in history too; the present boot is told by the present clock.
func TestAClockThatJumps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := newBlock()
	if err != nil {
		t.Fatal(err)
	}
	ring := &ring{dir: dir, limit: 1 << 20, disk: realDisk{}, wall: func() int64 { return 0 }, retire: func(f file) { _ = f.Close() }}
	if err := ring.load(); err != nil {
		t.Fatal(err)
	}
	earlier, present := bootID{1}, parseBoot(testBoot)
	day := 24 * time.Hour
	for i, w := range []struct {
		boot bootID
		zero time.Time
	}{{earlier, zero}, {earlier, zero.Add(day)}, {present, zero.Add(2 * day)}, {present, zero}} {
		b.event(new(link.Codec), &event.Event{Kind: event.Health, Seq: uint64(i), Time: sec(uint64(i))})
		if err := ring.append(func(m marker) []byte {
			return b.seal(blockHeader{marker: m, boot: w.boot, index: uint64(i), zero: w.zero.UnixNano()})
		}); err != nil {
			t.Fatal(err)
		}
		b.reset()
	}
	ring.close()
	r, err := Open(ReaderConfig{Dir: dir, Decoder: new(link.Codec), Boot: testBoot, Zero: zero.Add(3 * day)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []time.Duration
	for {
		rec, err := r.Next()
		if err != nil {
			break
		}
		got = append(got, rec.Wall.Sub(zero))
	}
	if want := []time.Duration{day, day + time.Second, 3*day + 2*time.Second, 3*day + 3*time.Second}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestReadingWhileItIsWritten: history of a running agent.
func TestReadingWhileItIsWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := start(t, dir, sized(1<<20))
	for i := range uint64(20) {
		for j := range uint64(2000) {
			g.lane.put(newExec(2000*i + j + 1))
		}
		g.taken()
		records, skips := history(t, dir, Query{})
		got := seqs(records)
		for j := 1; j < len(got); j++ {
			if got[j] != got[j-1]+1 && len(skips) == 0 {
				t.Fatalf("event %d follows %d, and nothing is said to be missing", got[j], got[j-1])
			}
		}
	}
}

func TestBootIDs(t *testing.T) {
	t.Parallel()
	if got := parseBoot(testBoot + "\n").String(); got != testBoot {
		t.Errorf("got %s", got)
	}
	for _, s := range []string{"", "x", "0a1b", testBoot + "00"} {
		if b := parseBoot(s); b != (bootID{}) || b.String() != "" {
			t.Errorf("%q is %s", s, b)
		}
	}
}

// TestNewest: of what is there only so much is read, whole blocks, with no hole between them.
func TestNewest(t *testing.T) {
	t.Parallel()
	block := func(at int64) span { return span{blockHeader{packed: 1000 - blockSize}, at} }
	for bytes, want := range map[int64][]int64{
		0: {1, 2, 3, 4, 5}, 999: nil, 1000: {5}, 2500: {4, 5}, 3000: {3, 4, 5}, 9000: {1, 2, 3, 4, 5},
	} {
		r := &Reader{files: []indexed{{"a", []span{block(1), block(2)}}, {"b", nil}, {"c", []span{block(3), block(4)}}, {"d", []span{block(5)}}}}
		r.keepNewest(bytes)
		var got []int64
		for _, f := range r.files {
			for _, s := range f.spans {
				got = append(got, s.at)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d bytes: blocks %v, want %v", bytes, got, want)
		}
	}
}
