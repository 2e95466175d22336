package hub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
	"github.com/google/go-cmp/cmp"
)

func TestFilter(t *testing.T) {
	t.Parallel()
	file := func(path, from, exe string) *event.Event {
		return &event.Event{
			Kind: event.Rename, Process: &event.Process{Executable: event.File{Path: exe}},
			File: &event.FileDetail{File: event.File{Path: path}, From: from},
		}
	}
	set := func(s ...string) map[string]struct{} {
		m, _ := muteSet(s, nil)
		return m
	}
	all := event.KindsOf(event.Rename, event.Exec, event.Verdict)
	tests := []struct {
		name string
		f    filter
		e    *event.Event
		want bool
	}{
		{"subscribed", filter{events: all}, file("/a", "", "/bin/x"), true},
		{"not_subscribed", filter{events: event.KindsOf(event.Exec)}, file("/a", "", "/bin/x"), false},
		{"muted_executable", filter{events: all, executables: set("/bin/x")}, file("/a", "", "/bin/x"), false},
		{"other_executable", filter{events: all, executables: set("/bin/x")}, file("/a", "", "/bin/xy"), true},
		{"no_process", filter{events: all, executables: set("")}, &event.Event{Kind: event.Exec}, true},
		{"muted_path", filter{events: all, paths: []string{"/var/log"}}, file("/var/log/x", "", ""), false},
		{"muted_path_itself", filter{events: all, paths: []string{"/var/log"}}, file("/var/log", "", ""), false},
		{"path_with_slash", filter{events: all, paths: []string{"/var/log/"}}, file("/var/log/x", "", ""), false},
		{"sibling_path", filter{events: all, paths: []string{"/var/log"}}, file("/var/logs/x", "", ""), true},
		{"inverted_in", filter{events: all, paths: []string{"/home"}, invert: true}, file("/home/a", "", ""), true},
		{"inverted_out", filter{events: all, paths: []string{"/home"}, invert: true}, file("/etc/a", "", ""), false},
		{"inverted_nothing", filter{events: all, invert: true}, file("/etc/a", "", ""), false},
		{"inverted_keeps_what_has_no_target", filter{events: all, paths: []string{"/home"}, invert: true}, &event.Event{Kind: event.Exec}, true},
		{"rename_out_of_muted", filter{events: all, paths: []string{"/tmp"}}, file("/bin/new", "/tmp/new", ""), true},
		{"rename_within_muted", filter{events: all, paths: []string{"/tmp"}}, file("/tmp/b", "/tmp/a", ""), false},
		{"inverted_rename_out", filter{events: all, paths: []string{"/tmp"}, invert: true}, file("/bin/new", "/tmp/new", ""), true},
		{"verdict_by_its_file", filter{events: all, paths: []string{"/tmp"}},
			&event.Event{Kind: event.Verdict, Verdict: &event.VerdictDetail{File: event.File{Path: "/tmp/x"}}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.f.wants(tt.e); got != tt.want {
				t.Errorf("wants: %v", got)
			}
		})
	}
}

func TestSubscribeIsHeldAgainstTheGrants(t *testing.T) {
	t.Parallel()
	type union struct {
		Events, Questions event.KindSet
		Scope             []string
	}
	var heard []union
	h, e := newHub(t, func(c *Config) {
		c.OnSubscriptions = func(events, questions event.KindSet, scope []string) {
			heard = append(heard, union{events, questions, scope})
		}
	})
	c, err := h.Attach(Member{Name: "p", See: event.KindsOf(event.Exec, event.Exit), Decide: event.KindsOf(event.Exec, event.Open, event.Unlink)}, &wire{})
	if err != nil {
		t.Fatal(err)
	}
	events, questions, refused := c.Subscribe(Subscription{
		Events: event.KindsOf(event.Exec, event.Unlink), Questions: event.KindsOf(event.Exec, event.Open, event.Unlink, event.Fork),
		MutePaths: []string{"relative", "/ok"},
	})
	if events != event.KindsOf(event.Exec) || questions != event.KindsOf(event.Exec) {
		t.Errorf("accepted %v, %v", events.List(), questions.List())
	}
	want := []string{
		"events of kind unlink: not granted by the operator",
		"questions of kind fork: not granted by the operator",
		"questions of kind unlink: there are none",
		"questions of kind open: the operator granted no scope",
		`mute_paths: "relative" is not an absolute path`,
	}
	if d := cmp.Diff(want, refused); d != "" {
		t.Error(d)
	}
	h.Regrant(c, everything("p"))
	c.Subscribe(Subscription{Events: event.KindsOf(event.Unlink), Questions: event.KindsOf(event.Open)})
	tap := h.Tap(event.KindsOf(event.Fork), 1)
	h.Detach(c)
	tap.Close()
	wantHeard := []union{
		{Events: event.KindsOf(event.Exec), Questions: event.KindsOf(event.Exec)},
		{Events: event.KindsOf(event.Unlink), Questions: event.KindsOf(event.Open), Scope: []string{"/home", "/tmp"}},
		{Events: event.KindsOf(event.Unlink, event.Fork), Questions: event.KindsOf(event.Open), Scope: []string{"/home", "/tmp"}},
		{Events: event.KindsOf(event.Fork)},
		{},
	}
	if d := cmp.Diff(wantHeard, heard); d != "" {
		t.Error(d)
	}
	wantCalls := []string{"joined 0 p", "invalidate subscription", "invalidate grants", "invalidate subscription", "gone 0", "invalidate product_detached"}
	if d := cmp.Diff(wantCalls, e.take()); d != "" {
		t.Error(d)
	}
}

func TestRegrantCutsTheSubscription(t *testing.T) {
	t.Parallel()
	h, _ := newHub(t, nil)
	c := attach(t, h, everything("p"), &wire{}, Subscription{
		Events: event.KindsOf(event.Exec, event.Exit), Questions: event.KindsOf(event.Exec, event.Open),
	})
	m := everything("p")
	m.See, m.Decide, m.Deny = event.KindsOf(event.Exit), event.KindsOf(event.Exec), false
	h.Regrant(c, m)
	v, _ := h.Voters(&event.Question{Kind: event.Exec})
	if v == nil || !v.Live.Has(c.Number()) || v.MayDeny != 0 {
		t.Errorf("exec voters %+v", v)
	}
	if v, _ := h.Voters(&event.Question{Kind: event.Open}); v != nil {
		t.Errorf("open voters %+v", v)
	}
	if h.Wants(event.Exec) || !h.Wants(event.Exit) {
		t.Error("events do not follow the grants")
	}
}

func TestVotersByScope(t *testing.T) {
	t.Parallel()
	h, _ := newHub(t, nil)
	open := Subscription{Questions: event.KindsOf(event.Open, event.Exec)}
	scoped := attach(t, h, everything("scoped"), &wire{}, open)
	m := everything("all")
	m.OpenScope, m.Shadow = []string{"/"}, true
	all := attach(t, h, m, &wire{}, open)
	bit := func(c *Client) event.ProductSet { return event.ProductBit(c.Number()) }
	for _, tt := range []struct {
		kind event.Kind
		path string
		want event.ProductSet
	}{
		{event.Open, "/home/u/x", bit(scoped) | bit(all)},
		{event.Open, "/homeless/x", bit(all)},
		{event.Open, "", bit(all)},
		{event.Exec, "/homeless/x", bit(scoped) | bit(all)},
	} {
		v, within := h.Voters(&event.Question{Kind: tt.kind, File: event.File{Path: tt.path}})
		if got := (v.Live | v.Shadow) & within; got != tt.want {
			t.Errorf("%s %s: asked %b, want %b", tt.kind, tt.path, got, tt.want)
		}
		if v.Live != bit(scoped) || v.Shadow != bit(all) {
			t.Errorf("live %b, shadow %b", v.Live, v.Shadow)
		}
	}
}

func TestQuestionsAreNumberedAndLossIsAnnounced(t *testing.T) {
	t.Parallel()
	h, _ := newHub(t, nil)
	ask := Subscription{Questions: event.KindsOf(event.Exec)}
	w, other, dead := &wire{capacity: 2}, &wire{}, &wire{broken: true}
	attach(t, h, everything("narrow"), w, ask)
	attach(t, h, everything("wide"), other, ask)
	attach(t, h, everything("dead"), dead, ask)
	full := make([]bool, 0, 6)
	for id := range uint64(6) {
		if id == 4 {
			w.read(2)
		}
		q := &event.Question{ID: id + 1, Kind: event.Exec}
		v, within := h.Voters(q)
		f, gone := h.Send(v, q, (v.Live|v.Shadow)&within, event.ProductBit(1), 99, id == 0)
		if gone != event.ProductBit(2) {
			t.Errorf("gone %b", gone)
		}
		full = append(full, f == event.ProductBit(0))
	}
	// The two slots that were read go to the announcement and the fifth question, whoever sent the announcement first.
	if d := cmp.Diff([]bool{false, false, true, true, false, true}, full); d != "" {
		t.Error(d)
	}
	w.mu.Lock()
	w.capacity = 0
	w.mu.Unlock()
	waitFor(t, func() bool { return len(w.of("lost_question")) == 2 })
	contiguous(t, w.read(0), 6, "question", "lost_question")
	contiguous(t, other.read(0), 6, "question", "lost_question")
	if q := other.of("question"); !q[0].shadow || !q[0].critical || q[1].critical {
		t.Errorf("flags of %+v", q[:2])
	}
}

// waitFor waits for another goroutine's work where the real clock runs.
func waitFor(tb testing.TB, cond func() bool) {
	tb.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if <-tick.C; time.Now().After(deadline) {
			tb.Fatal("it did not happen within a minute")
		}
	}
}

func TestSendReachesTheVotersOfItsSnapshotOnly(t *testing.T) {
	t.Parallel()
	h, _ := newHub(t, nil)
	ask := Subscription{Questions: event.KindsOf(event.Exec)}
	old := attach(t, h, everything("old"), &wire{}, ask)
	q := &event.Question{ID: 1, Kind: event.Exec}
	v, _ := h.Voters(q)
	h.Detach(old)
	w := &wire{}
	next, err := h.Attach(Member{Name: "old"}, w)
	if err != nil || next.Number() != old.Number() {
		t.Fatalf("number %d, %v", next.Number(), err)
	}
	if _, gone := h.Send(v, q, v.Live, 0, 0, false); gone != v.Live {
		t.Error("a question reached a product that was not asked")
	}
	h.Withdraw(v, 1, v.Live)
	if f := w.read(0); len(f) != 0 {
		t.Errorf("frames %+v", f)
	}
}

func TestEventsWindowAndQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t, func(c *Config) { c.Window, c.QueueEvents = 10, 20 })
		w := &wire{}
		c := attach(t, h, everything("p"), w, Subscription{Events: event.KindsOf(event.CloseWrite, event.Exit)})
		publish := func(n int, e func() *event.Event) {
			for range n {
				h.Publish(e())
				synctest.Wait()
			}
		}
		publish(30, func() *event.Event { return closeWrite("/x") })
		s := c.Stats()
		if s.Sent != 10 || s.Queued != 15 || s.Dropped != 5 || s.Unacked != 10 {
			t.Errorf("three quarters for others: %+v", s)
		}
		publish(10, func() *event.Event { return &event.Event{Kind: event.Exit} })
		s = c.Stats()
		if s.Sent != 10 || s.Dropped != 5+6 || s.Events != 40 {
			t.Errorf("the last quarter for the process tree: %+v", s)
		}
		for acked := uint64(0); acked < s.Events; {
			f := w.read(0)
			acked = f[len(f)-1].to
			if f[len(f)-1].kind == "event" {
				c.Ack(acked)
			}
			synctest.Wait()
		}
		contiguous(t, w.read(0), 40, "event", "lost")
		if n := len(w.of("lost")); n != 2 {
			t.Errorf("%d announcements, want one before the exits and one after", n)
		}
		c.Ack(99)
		if c.Stats().Faults != 1 {
			t.Error("an Ack of what was never sent is no fault")
		}
	})
}

func TestAFullSocketIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t, nil)
		w := &wire{capacity: 3}
		attach(t, h, everything("p"), w, Subscription{Events: event.KindsOf(event.CloseWrite)})
		for range 10 {
			h.Publish(closeWrite("/x"))
		}
		for range 5 {
			time.Sleep(20 * time.Millisecond)
			w.read(3)
		}
		synctest.Wait()
		contiguous(t, w.read(0), 10, "event", "lost")
	})
}

func TestTooLargeAnEventIsAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t, func(c *Config) { c.Encoder = huge{} })
		w := &wire{}
		attach(t, h, everything("p"), w, Subscription{Events: event.KindsOf(event.CloseWrite)})
		h.Publish(closeWrite("/x"))
		synctest.Wait()
		if l := w.of("lost"); len(l) != 1 || l[0].seq != 1 {
			t.Errorf("frames %+v", w.frames)
		}
	})
}

type huge struct{ numbers }

func (huge) AppendEvent(dst []byte, _ *event.Event) []byte {
	return append(dst, make([]byte, maxPayload+1)...)
}

func TestTap(t *testing.T) {
	t.Parallel()
	h, _ := newHub(t, nil)
	tap := h.Tap(event.KindsOf(event.Exit), 2)
	for range 5 {
		h.Publish(&event.Event{Kind: event.Exit})
		h.Publish(&event.Event{Kind: event.Fork})
	}
	next := func() string {
		e, lost, err := tap.Next(t.Context())
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(e.Seq, " after ", lost)
	}
	got := []string{next(), next()}
	h.Publish(&event.Event{Kind: event.Exit})
	got = append(got, next(), fmt.Sprint(tap.Dropped()))
	if d := cmp.Diff([]string{"1 after 0", "3 after 0", "11 after 3", "3"}, got); d != "" {
		t.Error(d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := tap.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	tap.Close()
	tap.Close()
	if _, _, err := tap.Next(t.Context()); !errors.Is(err, ErrTapClosed) {
		t.Error(err)
	}
	if h.Wants(event.Exit) {
		t.Error("a closed tap is still wanted")
	}
}

func TestFindingsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t, func(c *Config) { c.FindingRate = 5 })
		c := attach(t, h, everything("p"), &wire{}, Subscription{})
		tap := h.Tap(event.KindsOf(event.Finding), 1000)
		burst := func() {
			for range 100 {
				c.Finding(&event.FindingDetail{Product: "someone else", Rule: "r"})
			}
		}
		burst()
		if s := c.Stats(); s.Findings != 50 || s.FindingsDropped != 50 {
			t.Errorf("%+v", s)
		}
		time.Sleep(2 * time.Second)
		burst()
		time.Sleep(24 * 365 * time.Hour)
		burst()
		if s := c.Stats(); s.Findings != 50+10+50 {
			t.Errorf("%+v", s)
		}
		if e, _, _ := tap.Next(t.Context()); e.Finding.Product != "p" {
			t.Errorf("finding of %q", e.Finding.Product)
		}
	})
}

func TestDegradedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := health.NewRegistry()
		h, _ := newHub(t, func(c *Config) { c.Health = reg })
		w := &wire{capacity: 1}
		w.used = 1
		c := attach(t, h, everything("p"), w, Subscription{})
		tap := h.Tap(event.KindsOf(event.Product), 10)
		h.SetDegraded(c.Number(), true, "missed 3 questions in a row")
		time.Sleep(time.Second)
		if len(w.frames) != 0 {
			t.Fatal("the wire took more than it can")
		}
		w.read(1)
		time.Sleep(time.Second)
		if s := w.of("state"); len(s) != 1 || s[0].text != "degraded: missed 3 questions in a row" {
			t.Errorf("told %+v", s)
		}
		if e, _, _ := tap.Next(t.Context()); e.Product.Authority != "degraded" || e.Product.Product != "p" {
			t.Errorf("event %+v", e.Product)
		}
		if l := reg.List(); len(l) != 1 || l[0].Status != health.Degraded || !strings.Contains(l[0].Summary, "3 questions") {
			t.Errorf("health %+v", l)
		}
		h.SetDegraded(c.Number(), false, "no miss in 30s")
		if reg.Worst() != health.OK {
			t.Error("health did not recover")
		}
		h.SetDegraded(63, true, "nobody")
	})
}

func TestAttachBounds(t *testing.T) {
	t.Parallel()
	h, e := newHub(t, nil)
	var clients []*Client
	for i := range event.MaxProducts {
		clients = append(clients, attach(t, h, everything(fmt.Sprint("p", i)), &wire{}, Subscription{}))
	}
	if _, err := h.Attach(everything("one more"), &wire{}); err == nil {
		t.Error("a 65th product was attached")
	}
	h.Detach(clients[7])
	h.Detach(clients[7])
	c := attach(t, h, everything("another"), &wire{}, Subscription{})
	if c.Number() != 7 {
		t.Errorf("number %d", c.Number())
	}
	e.take()
	if err := c.Answer(5, true, false); err != nil {
		t.Error(err)
	}
	if err := c.Answer(0, true, false); err == nil {
		t.Error("the engine's error is not passed on")
	}
	if err := c.Extend(5, 6); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff([]string{"answer 7 5 true false", "answer 7 0 true false", "extend 7 5 6"}, e.take()); d != "" {
		t.Error(d)
	}
	h.Close()
	if _, err := h.Attach(everything("late"), &wire{}); err == nil {
		t.Error("attached to a closed hub")
	}
	if _, _, refused := c.Subscribe(Subscription{}); len(refused) == 0 {
		t.Error("a detached product subscribed")
	}
}
