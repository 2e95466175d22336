package release_test

import (
	"errors"
	"strings"
	"testing"

	"bailey/update/release"

	"github.com/google/go-cmp/cmp"
)

const description = `{"schema":1,"vendor":"acme","product":"edr","kind":"content","version":"2026.11.22.1","epoch":7,` +
	`"requires":{"code":">=7.1.0 <8","platform":">=1.4"},"platforms":["linux/amd64","linux/arm64"],"rollback_to":["2026.11.21.4"],` +
	`"urgency":"routine","min_ramp_s":3600,"min_canary_s":600,"health":{"window_s":600,"start_timeout_s":30,"max_rss_mib":300}}`

func version(t testing.TB, text string) release.Version {
	t.Helper()
	v, err := release.ParseVersion(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVersionsAreOrdered(t *testing.T) {
	t.Parallel()
	order := []string{"0", "0.9", "1-alpha", "1-rc.1", "1-rc.2", "1-rc.10", "1-rc.a", "1", "1.0.1", "1.2", "1.10", "2026.11.21.4", "2026.11.22.1"}
	for i, a := range order {
		for j, b := range order {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := version(t, a).Compare(version(t, b)); got != want {
				t.Errorf("%s and %s: %d, want %d", a, b, got, want)
			}
		}
	}
	if version(t, "1.2").Compare(version(t, "1.2.0.0")) != 0 {
		t.Error("1.2 is not 1.2.0.0")
	}
}

func TestParseVersionRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", ".", "1.", ".1", "01", "1.02", "+1", "v1", "1-", "1-RC", "1-rc.", "1-1", "1.2.3.4.5.6.7", "4294967296", "1 ", "1_2", "1/2", "١", strings.Repeat("1", 49)} {
		if v, err := release.ParseVersion(text); err == nil {
			t.Errorf("%q is accepted as %s", text, v)
		}
	}
}

func TestConstraints(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		constraint, version string
		want                bool
	}{
		{">=7.1.0 <8", "7.1", true},
		{">=7.1.0 <8", "7.99.3", true},
		{">=7.1.0 <8", "8", false},
		{">=7.1.0 <8", "7.0.9", false},
		{">=7.1.0 <8", "8-rc.1", true},
		{"=2", "2.0", true},
		{"=2", "2.0.1", false},
		{">1 <=2", "2", true},
		{">1 <=2", "1", false},
	} {
		c, err := release.ParseConstraint(tc.constraint)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Holds(version(t, tc.version)); got != tc.want {
			t.Errorf("%s holds for %s: %v", tc.constraint, tc.version, got)
		}
		if c.String() != tc.constraint {
			t.Errorf("%q is written as %q", tc.constraint, c)
		}
	}
	for _, text := range []string{"", " ", "7", ">=", ">= 7", ">7  <8", "~1", "==1", ">1 ", "!=1", ">1,<2", strings.Repeat(">1 ", 8) + ">1"} {
		if c, err := release.ParseConstraint(text); err == nil {
			t.Errorf("%q is accepted as %s", text, c)
		}
	}
}

func TestRolesAndPaths(t *testing.T) {
	t.Parallel()
	s := release.Stream{Vendor: "acme-corp", Product: "edr", Kind: release.Content}
	if got, err := release.ParseRole(s.Role()); err != nil || got != s {
		t.Errorf("%v, %v", got, err)
	}
	for _, platform := range []string{"", "linux/amd64"} {
		path := s.Path(version(t, "1.2-rc.1"), platform)
		got, v, p, err := release.ParsePath(path)
		if err != nil || got != s || v.String() != "1.2-rc.1" || p != strings.ReplaceAll(platform, "/", "-") {
			t.Errorf("%s: %v %s %q %v", path, got, v, p, err)
		}
	}
	for _, role := range []string{"", "targets", "policy", "acme", "acme--edr", "acme--edr--both", "acme---edr--code", "acme--edr--code--", "Acme--edr--code", "acme/edr/code", "a--b--c--code", "policy--x--code"} {
		if s, err := release.ParseRole(role); err == nil {
			t.Errorf("the role %q is that of %s", role, s)
		}
	}
	for _, path := range []string{"", "x", "acme/edr/code", "acme/edr/code/1.tar", "acme/edr/code/.tar.zst", "acme/edr/code/../1.tar.zst", "acme/edr/code/1_.tar.zst", "acme/edr/code/1_linux.tar.zst", "../edr/code/1.tar.zst", "acme/edr/code/x/1.tar.zst", "acme/edr/code/01.tar.zst"} {
		if s, v, _, err := release.ParsePath(path); err == nil {
			t.Errorf("the path %q is that of %s %s", path, s, v)
		}
	}
}

// TestStreamOfTheAgent: the agent's name is nobody else's, and it is code.
func TestStreamOfTheAgent(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"bailey/agent/code": true, "bailey/agent/content": false, "acme/agent/code": false, "bailey/edr/content": true, "agent/edr/code": true,
	} {
		if _, err := release.ParseStream(text); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestDeltaPaths(t *testing.T) {
	t.Parallel()
	const bundle = "acme/edr/content/1.2_linux-amd64.tar.zst"
	path := release.DeltaPath(bundle, version(t, "1.1-rc.1"))
	if got, base, err := release.ParseDeltaPath(path); err != nil || got != bundle || base.String() != "1.1-rc.1" {
		t.Errorf("%s: %q, %s, %v", path, got, base, err)
	}
	for _, bad := range []string{"", bundle, "acme/edr/content/1.2.delta", "acme/edr/content/1.2~.delta", "acme/edr/content/1.2~1.2.delta", "acme/edr/content/1.2~1~1.delta", "acme/edr/1.2~1.delta", "acme/edr/content/~1.delta"} {
		if got, base, err := release.ParseDeltaPath(bad); err == nil {
			t.Errorf("%q is a delta from %s to %s", bad, base, got)
		}
	}
}

func TestParseAndBack(t *testing.T) {
	t.Parallel()
	d, err := release.Parse([]byte(description))
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(description, string(text)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][2]string{
		"unknown_name": {`"epoch":7`, `"epoch":7,"limit":1`}, "null": {`"epoch":7`, `"epoch":null`}, "float": {`"epoch":7`, `"epoch":7.5`},
		"twice": {`"epoch":7`, `"epoch":7,"Epoch":9`}, "negative": {`"epoch":7`, `"epoch":-7`}, "vendor": {`"acme"`, `"../acme"`}, "kind": {`"content"`, `"driver"`},
		"version": {`"2026.11.22.1"`, `"v1"`}, "no_platform": {`["linux/amd64","linux/arm64"]`, `[]`}, "order": {`["linux/amd64","linux/arm64"]`, `["linux/arm64","linux/amd64"]`},
		"itself": {`"code":">`, `"content":">`}, "other": {`"code":">`, `"kernel":">`}, "constraint": {`>=7.1.0 <8`, ``}, "forward": {`["2026.11.21.4"]`, `["2026.11.22.1"]`},
		"urgency": {`"routine"`, `"now"`}, "ramp": {`3600`, `-1`}, "rss": {`300`, `99999999999`}, "schema": {`"schema":1`, `"schema":0`}, "no_schema": {`"schema":1,`, ``},
		"large": {`"acme"`, `"` + strings.Repeat("a", 9000) + `"`},
	} {
		text := strings.Replace(description, change[0], change[1], 1)
		if text == description {
			t.Fatalf("%s changes nothing", name)
		}
		if _, err := release.Parse([]byte(text)); err == nil || errors.Is(err, release.ErrNewer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	newer := strings.Replace(description, `"schema":1`, `"schema":2,"new":true`, 1)
	if _, err := release.Parse([]byte(newer)); !errors.Is(err, release.ErrNewer) {
		t.Errorf("a newer form: %v", err)
	}
}

func TestFits(t *testing.T) {
	t.Parallel()
	d, err := release.Parse([]byte(description))
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]release.Version{"code": version(t, "7.2"), "platform": version(t, "1.4")}
	if err := d.Fits("linux/amd64", there); err != nil {
		t.Error(err)
	}
	if err := d.Fits("linux/riscv64", there); err == nil {
		t.Error("it fits another platform")
	}
	there["code"] = version(t, "8")
	if err := d.Fits("linux/amd64", there); err == nil {
		t.Error("it fits newer code")
	}
	delete(there, "code")
	if err := d.Fits("linux/amd64", there); err == nil {
		t.Error("it fits without code")
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	s := release.Stream{Vendor: "acme", Product: "edr", Kind: release.Content}
	p := release.Policy{Schema: 1, Disabled: []release.Disabled{{Vendor: "acme", Product: "edr", Kind: release.Content, Version: version(t, "1.2"), Reason: "crashes its parser"}}}
	text, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	got, err := release.ParsePolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	if reason, yes := got.Disables(s, version(t, "1.2.0")); !yes || reason != "crashes its parser" {
		t.Errorf("%q, %v", reason, yes)
	}
	if _, yes := got.Disables(s, version(t, "1.3")); yes {
		t.Error("another version is disabled")
	}
	s.Kind = release.Code
	if _, yes := got.Disables(s, version(t, "1.2")); yes {
		t.Error("the code is disabled with the content")
	}
	for _, bad := range []string{``, `{}`, `{"schema":1,"disabled":null}`, `{"schema":2,"disabled":[]}`, `{"schema":1,"disabled":[],"enabled":[]}`, strings.Replace(string(text), "crashes", `\n`, 1), strings.Replace(string(text), `"1.2"`, `""`, 1)} {
		if _, err := release.ParsePolicy([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

// FuzzParse: what is accepted is written back and read the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte(description))
	f.Add([]byte(strings.Replace(description, "7.1.0", "0", 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := release.Parse(text)
		if err != nil {
			return
		}
		back, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if e, err := release.Parse(back); err != nil || !d.Equal(e) {
			t.Fatalf("%s became %s: %v", text, back, err)
		}
	})
}

// FuzzParsePath: what is accepted is put together again as it was, and leads nowhere else.
func FuzzParsePath(f *testing.F) {
	f.Add("acme/edr/content/2026.11.22.1_linux-amd64.tar.zst")
	f.Add("acme/edr/code/1-rc.1.tar.zst")
	f.Add("acme/edr/content/2~1.delta")
	f.Fuzz(func(t *testing.T, path string) {
		if bundle, base, err := release.ParseDeltaPath(path); err == nil && release.DeltaPath(bundle, base) != path {
			t.Fatalf("the delta %q became %q from %s", path, bundle, base)
		}
		s, v, platform, err := release.ParsePath(path)
		if err != nil {
			return
		}
		if back := s.Path(v, strings.Replace(platform, "-", "/", 1)); back != path {
			t.Fatalf("%q became %q", path, back)
		}
		if strings.Contains(path, "..") || strings.HasPrefix(path, "/") {
			t.Fatalf("%q leads elsewhere", path)
		}
	})
}

// FuzzParseVersion: one text for each version, and the order is one.
func FuzzParseVersion(f *testing.F) {
	f.Add("1.2.3-rc.1", "1.2.3")
	f.Fuzz(func(t *testing.T, a, b string) {
		v, err := release.ParseVersion(a)
		if err != nil {
			return
		}
		if v.String() != a {
			t.Fatalf("%q is written as %q", a, v)
		}
		if w, err := release.ParseVersion(b); err == nil && v.Compare(w) != -w.Compare(v) {
			t.Fatalf("%q and %q have no order", a, b)
		}
	})
}
