package grant_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bailey/agent/event"
	"bailey/agent/product/grant"
	"bailey/agent/product/manifest"
)

func full(t *testing.T) grant.Grant {
	t.Helper()
	data, err := os.ReadFile("../manifest/testdata/good/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return grant.Wanted(m)
}

func TestItems_and_json_are_the_same_grant(t *testing.T) {
	t.Parallel()
	g := full(t)
	back, err := grant.Parse(g.Items())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(g, back); diff != "" {
		t.Errorf("items (-want +got):\n%s", diff)
	}
	b, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	var decoded grant.Grant
	if err := json.Unmarshal(b, &decoded); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(g, decoded); diff != "" {
		t.Errorf("json (-want +got):\n%s", diff)
	}
	want := []string{"see:exec", "see:exit", "see:verdict", "decide:exec", "decide:open", "deny", "deny_critical", "on_miss:deny",
		"daemon:/usr/sbin/clamd", "scope:/home", "scope:/tmp", "read:/usr", "read:/var/lib/dpkg", "connect:/run/clamav/clamd.ctl", "rule:exec", "rule:unlink_rename",
		"memory:256MiB", "pids:32", "cpu:1.5", "files:128", "state:1MiB", "log:128KiB"}
	if diff := cmp.Diff(want, g.Items()); diff != "" {
		t.Errorf("items (-want +got):\n%s", diff)
	}
}

func TestAdd_and_Remove(t *testing.T) {
	t.Parallel()
	g := full(t)
	for _, it := range g.Items() {
		before := g
		err := g.Remove(it)
		if limit := strings.ContainsAny(it[strings.IndexByte(it+":", ':'):], "0123456789"); limit {
			if err == nil {
				t.Errorf("%s: a limit was revoked", it)
			}
			continue
		}
		if err != nil {
			t.Fatalf("remove %s: %v", it, err)
		}
		if slices.Contains(g.Items(), it) {
			t.Errorf("%s is still there", it)
		}
		if err := g.Remove(it); err == nil {
			t.Errorf("%s was revoked twice", it)
		}
		if err := g.Add(it); err != nil {
			t.Fatalf("add %s: %v", it, err)
		}
		if diff := cmp.Diff(before, g); diff != "" {
			t.Errorf("%s: not back (-want +got):\n%s", it, diff)
		}
	}
}

func TestAdd_refuses(t *testing.T) {
	t.Parallel()
	for _, it := range []string{"", "see", "see:x", "decide:fork", "rule", "rule:fly", "deny:exec", "read:", "read:etc", "read:/", "read:/proc/1", "connect:/run",
		"scope:/a/../b", "memory:", "memory:0", "memory:-1", "pids:x", "pids:0", "cpu:NaN", "cpu:0", "fly", "live:yes"} {
		var g grant.Grant
		if err := g.Add(it); err == nil {
			t.Errorf("%q was granted: %v", it, g.Items())
		}
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	want := full(t)
	have := full(t)
	if got := grant.Missing(want, have); len(got) != 0 {
		t.Errorf("nothing is new, got %v", got)
	}
	if got := grant.Missing(want, grant.Grant{}); !slices.Equal(got, want.Items()) {
		t.Errorf("everything is new, got %v", got)
	}
	have.See &^= event.KindsOf(event.Exit)
	have.Limits.Memory *= 2 // more than wanted covers it
	have.Limits.Pids = 8
	if diff := cmp.Diff([]string{"see:exit", "pids:32"}, grant.Missing(want, have)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDescribe_leaves_nothing_out(t *testing.T) {
	t.Parallel()
	items := full(t).Items()
	text := strings.Join(grant.Describe(items), "\n")
	for _, it := range items {
		if _, value, ok := strings.Cut(it, ":"); ok && value != "exec" && value != "open" && value != "deny" && !strings.Contains(text, value) {
			t.Errorf("%s is not described in:\n%s", it, text)
		}
	}
	for _, it := range items {
		if len(grant.Describe([]string{it})) != 1 {
			t.Errorf("%s has no description of its own", it)
		}
	}
}

func FuzzAdd(f *testing.F) {
	for _, s := range []string{"see:exec", "deny", "on_miss:deny", "read:/usr", "memory:64MiB", "cpu:0.5", "scope:/home", ":", "pids:99999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, item string) {
		var g grant.Grant
		if g.Add(item) != nil {
			return
		}
		back, err := grant.Parse(g.Items())
		if err != nil {
			t.Fatalf("%q became %q, which is refused: %v", item, g.Items(), err)
		}
		if diff := cmp.Diff(g, back); diff != "" {
			t.Fatal(diff)
		}
	})
}
