package hub

import (
	"testing"

	"bailey/agent/event"
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
