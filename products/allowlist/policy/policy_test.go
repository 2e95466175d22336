package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// known is a Facts with fixed answers.
type known struct {
	sum string
	pkg Package
	err error
}

func (k known) SHA256() (string, error)   { return k.sum, k.err }
func (k known) Package() (Package, error) { return k.pkg, k.err }

const sumA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

const fixture = `
[[rule]]
name = "no-tmp"
action = "deny"
path = ["/tmp/**"]

[[rule]]
name = "packages"
action = "allow"
package = ["*"]

[[rule]]
name = "tool"
action = "allow"
sha256 = ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]

[[rule]]
name = "builders"
action = "allow"
path = ["/home/*/src/**"]
uid = [1000, 1001]
`

func mustParse(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDecide(t *testing.T) {
	t.Parallel()
	withoutDeny := strings.SplitN(fixture, "[[rule]]", 3)[2]
	withoutDeny = "[[rule]]" + withoutDeny
	verified, other := Package{Name: "dash", Verified: true}, Package{Name: "dash", Reason: "differs"}
	tests := map[string]struct {
		policy  string
		subject Subject
		facts   known
		want    Verdict
	}{
		"package":                     {withoutDeny, Subject{Path: "/bin/dash"}, known{pkg: verified}, Verdict{Allow: true, Rule: "packages", FileOnly: true, Package: verified}},
		"package_after_a_path_deny":   {fixture, Subject{Path: "/bin/dash"}, known{pkg: verified}, Verdict{Allow: true, Rule: "packages", Package: verified}},
		"package_passing":             {withoutDeny, Subject{Path: "/bin/new"}, known{pkg: Package{Verified: true, Passing: true}}, Verdict{Allow: true, Rule: "packages", Package: Package{Verified: true, Passing: true}}},
		"package_with_other_content":  {withoutDeny, Subject{Path: "/bin/dash"}, known{pkg: other}, Verdict{Rule: DefaultRule, Package: other}},
		"sha256":                      {withoutDeny, Subject{Path: "/x"}, known{sum: sumA}, Verdict{Allow: true, Rule: "tool", FileOnly: true}},
		"path_and_uid":                {withoutDeny, Subject{Path: "/home/a/src/b/c", UID: 1001}, known{}, Verdict{Allow: true, Rule: "builders"}},
		"path_without_uid":            {withoutDeny, Subject{Path: "/home/a/src/b/c", UID: 7}, known{}, Verdict{Rule: DefaultRule}},
		"uid_without_path":            {withoutDeny, Subject{Path: "/home/a/b", UID: 1001}, known{}, Verdict{Rule: DefaultRule}},
		"deny_comes_first":            {fixture, Subject{Path: "/tmp/a/b"}, known{pkg: verified, sum: sumA}, Verdict{Rule: "no-tmp"}},
		"nothing":                     {fixture, Subject{Path: "/x"}, known{}, Verdict{Rule: DefaultRule}},
		"named_package_not_new_files": {strings.ReplaceAll(withoutDeny, `"*"`, `"dash"`), Subject{Path: "/bin/new"}, known{pkg: Package{Verified: true, Passing: true}}, Verdict{Rule: DefaultRule, Package: Package{Verified: true, Passing: true}}},
		"deny_package_by_name": {"[[rule]]\nname='no'\naction='deny'\npackage=['net*']\n" + withoutDeny, Subject{Path: "/bin/nc"},
			known{pkg: Package{Name: "netcat", Verified: true}}, Verdict{Rule: "no", Package: Package{Name: "netcat", Verified: true}}},
		"deny_package_passed": {"[[rule]]\nname='no'\naction='deny'\npackage=['net*']\n" + withoutDeny, Subject{Path: "/bin/dash"},
			known{pkg: verified}, Verdict{Allow: true, Rule: "packages", Package: verified}},
		"deny_sha256_passed": {"[[rule]]\nname='no'\naction='deny'\nsha256=['" + strings.Repeat("b", 64) + "']\n" + withoutDeny, Subject{Path: "/x"},
			known{sum: sumA}, Verdict{Allow: true, Rule: "tool", FileOnly: true}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := mustParse(t, test.policy).Decide(test.subject, test.facts)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMissingFactsDecideNothing(t *testing.T) {
	t.Parallel()
	p := mustParse(t, fixture)
	missing := errors.New("not now")
	for name, test := range map[string]struct {
		subject Subject
		facts   known
	}{
		"content": {Subject{Path: "/x"}, known{err: missing}},
		"path":    {Subject{}, known{sum: sumA}},
		"asker":   {Subject{Path: "/x", NoUID: true}, known{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if v, err := p.Decide(test.subject, test.facts); !errors.Is(err, ErrUndecided) {
				t.Errorf("got %+v, %v", v, err)
			}
		})
	}
}

func TestParseFaults(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ text, want string }{
		"unknown_key":      {"mode = 'monitor'\n\nmod = 'x'\n", "line 3: unknown key mod"},
		"unknown_rule_key": {"[[rule]]\nname = 'a'\naction = 'allow'\npaths = ['/x']\n", "line 4: unknown key rule.paths"},
		"syntax":           {"mode = \n", "line 1:"},
		"bad_mode":         {"mode = 'enforce'\n", "known are monitor and lockdown"},
		"bad_timeout":      {"on_timeout = 'drop'\n", "known are allow and deny"},
		"bad_action":       {"\n[[rule]]\nname = 'a'\naction = 'permit'\npath = ['/x']\n", "line 2: rule \"a\": action"},
		"no_condition":     {"[[rule]]\nname = 'a'\naction = 'allow'\n", "would match everything"},
		"no_name":          {"[[rule]]\naction = 'allow'\npath = ['/x']\n", "a name of its own"},
		"same_name":        {"[[rule]]\nname = 'a'\naction = 'allow'\npath = ['/x']\n[[rule]]\nname = 'a'\naction = 'deny'\npath = ['/x']\n", "line 5:"},
		"short_digest":     {"[[rule]]\nname = 'a'\naction = 'allow'\nsha256 = ['abc']\n", "64 hexadecimal digits"},
		"relative_path":    {"[[scope]]\npath = 'tmp/**'\nmode = 'lockdown'\n", "line 1: path"},
		"bad_glob":         {"[[scope]]\npath = '/tmp/[a'\nmode = 'lockdown'\n", "not a glob"},
		"trailing_slash":   {"[[scope]]\npath = '/tmp/'\nmode = 'lockdown'\n", "without a slash at the end"},
		"bad_scope_mode":   {"[[scope]]\npath = '/tmp'\nmode = 'x'\n", "known are monitor and lockdown"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := Parse([]byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) || p != nil {
				t.Errorf("got %v, %v; want an error with %q", p, err, test.want)
			}
		})
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	base := mustParse(t, "[[scope]]\npath = '/srv/**'\nmode = 'lockdown'\n"+fixture)
	p, err := base.Apply(map[string]string{"mode": "", "lockdown_paths": "/tmp/demo/**, /opt/**", "monitor_paths": "/srv/a/**", "allow_paths": "/tmp/ok", "elsewhere": "x"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]Mode{"/tmp/demo/x": Lockdown, "/opt/x": Lockdown, "/srv/b": Lockdown, "/srv/a/b": Monitor, "/usr/bin/x": Monitor} {
		if got := p.ModeOf(path); got != want {
			t.Errorf("ModeOf(%s) = %s, want %s", path, got, want)
		}
	}
	if v, err := p.Decide(Subject{Path: "/tmp/ok"}, known{}); err != nil || !v.Allow || v.Rule != "setting:allow_paths" {
		t.Errorf("the setting does not come first: %+v, %v", v, err)
	}
	if p, err := base.Apply(map[string]string{"mode": "lockdown"}); err != nil || p.ModeOf("/usr/bin/x") != Lockdown {
		t.Errorf("mode lockdown: %+v, %v", p, err)
	}
	for key, value := range map[string]string{"mode": "off", "lockdown_paths": "tmp", "allow_sha256": "12", "on_timeout": "x"} {
		if _, err := base.Apply(map[string]string{key: value}); err == nil || !strings.Contains(err.Error(), "settings") {
			t.Errorf("%s = %q: %v", key, value, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(fixture, "/tmp/x")
	f.Add("mode = 'lockdown'\n[[scope]]\npath = '/a/{b,c}/**'\nmode = 'monitor'\n", "/a/b/c")
	f.Add("rule = [{name='a', action='deny', path=['/[!a]*']}]", "/b")
	f.Fuzz(func(t *testing.T, text, path string) {
		p, err := Parse([]byte(text))
		if err != nil {
			if p != nil {
				t.Error("a policy with a fault")
			}
			return
		}
		v, err := p.Decide(Subject{Path: path}, known{sum: sumA, pkg: Package{Name: "p", Verified: true}})
		if err == nil && v.FileOnly && !v.Allow {
			t.Errorf("a deny is cached: %+v", v)
		}
	})
}
