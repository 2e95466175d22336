// Package bailey_test holds the policy of the whole repository as tests: which package may import which, what every package
// must say about itself, and how long things may grow. It tests no behaviour.
package bailey_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

// importPolicy is written as Go's own deps_test: "a < b" means b may import a. "x/..." is x and everything below it, "x/*" is
// what is directly below it. What is not allowed here is forbidden. Imports from outside this module are not listed, except
// by purity below.
const importPolicy = `
# Words, health and helpers with one job lean on nothing of ours.
NONE < agent/event, agent/health, internal/...;
api/product/v1 < api/product/v1/..., api/control/v1/...;
internal/ownthread < api/product/v1/wire;
internal/heaplimit < internal/launch;
internal/launch < internal/child;
internal/bpffs, internal/lsm < internal/bpflsm;
internal/bpflsm, internal/roottest < internal/bpflsm/bpflsmtest;
api/control/v1 < api/control/v1/...;
api/control/v1/controlv1connect < api/control/v1/client;

# Products see the SDK and nothing else; so do authors' examples.
api/product/v1/... < sdk, sdk/sdktest;
sdk < sdk/sdktest;
sdk, sdk/packagedb < products/..., sdk/examples/..., test/bench/product;
# (a product's own packages may import one another: sameProduct)

# Stages of the agent: siblings never import one another.
agent/event, agent/health, internal/... < agent/sensor/..., agent/hub, agent/verdict, agent/critical, agent/brake, agent/keeper, agent/control, agent/config, agent/recorder, agent/product/..., agent/journal, agent/metrics, agent/guard, agent/rules, agent/unit, agent/boot;
agent/sensor/probe < agent/sensor/...;
sdk/packagedb < agent/critical;
api/product/v1/..., agent/product/... < agent/product/...;
api/control/v1/..., api/product/v1/... < agent/control, agent/control/controltest;
agent/control, agent/event, agent/health < agent/control/controltest;
agent/health, internal/... < agent/unlock;
agent/unlock/... < agent/unlock, agent/unlock/operatorkey;
internal/durable, internal/sealedkey < agent/unlock/operatorkey;
agent/unlock/operatorkey, update/release < agent/config;

# What the agent itself is updated by: which program is in force, and what says whether another works.
internal/..., update/release < agent/inforce;
internal/... < agent/stall;
api/..., internal/... < agent/trial;

# A rehearsal runs a product, speaks with it, and reads nothing but what it is given.
agent/event, internal/strictjson < agent/rehearsal/corpus;
agent/event, internal/..., api/product/v1, agent/product, agent/product/grant, agent/product/link, agent/recorder, agent/rehearsal/corpus < agent/rehearsal;

# Updates: the words, then what reads and writes them. Neither knows the agent.
internal/... < update/...;
update/release < update/...;
update/bundle < update/publish;
update/trust < update/publish, update/trust/conformance;
update/trust, update/bundle < update/client;
update/trust, update/client < update/fetch;

# The composition root is the only package that knows everything.
agent/..., api/..., internal/..., sdk/packagedb, update/... < agent;

# The self-test is an operator and a product at once, from outside.
api/..., sdk, internal/... < agent/selftest;

# The command line: a client of the control API, and the door to the agent.
agent, agent/..., api/..., internal/... < internal/cli/..., cmd/...;

# The fleet's command line knows nothing of the agent.
update/..., internal/... < internal/fleetcli;

# The benches and harnesses drive the programs from outside.
internal/... < test/...;
agent/keeper < test/rig;
sdk < test/faulty;

# What tests of the whole stand on drives the programs from outside too.
api/... < test/rig, test/demo;
update/... < test/rig;
test/rig < test/...;
test/started < test/...;
test/bench/contender < test/bench, test/vm/bench/...;
test/vm/... < test/vm/...;
`

// testPolicy lists what test files may import beyond importPolicy. External test packages may import their own package.
const testPolicy = `
internal/leakcheck, internal/roottest < ...;
agent/event, agent/health, api/... < ...;
update/... < update/..., test/incident;
sdk/sdktest < products/..., sdk/...;
agent/... < agent/...;
agent/..., sdk/..., products/..., api/... < test/..., internal/cli/...;
sdk/... < agent/...;
`

// purity lists packages that must stay free of input and output: the vocabulary is imported by all.
var purity = map[string][]string{
	"agent/event": {"os", "os/exec", "net", "net/http", "log", "log/slog", "syscall", "golang.org/x/sys/unix"},
}

// rule is one line of a policy.
type rule struct{ from, to []string }

func parsePolicy(t *testing.T, text string) []rule {
	t.Helper()
	var rules []rule
	for _, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSuffix(strings.TrimSpace(line), ";"); line == "" {
			continue
		}
		from, to, found := strings.Cut(line, "<")
		if !found {
			t.Fatalf("policy line without <: %q", line)
		}
		rules = append(rules, rule{from: words(from), to: words(to)})
	}
	return rules
}

func words(list string) []string {
	var out []string
	for _, w := range strings.Split(list, ",") {
		if w = strings.TrimSpace(w); w != "" && w != "NONE" {
			out = append(out, w)
		}
	}
	return out
}

// matches reports whether pkg is meant by pattern.
func matches(pattern, pkg string) bool {
	if pattern == "..." {
		return true
	}
	if base, found := strings.CutSuffix(pattern, "/..."); found {
		if strings.Contains(base, "*") {
			parts := strings.Count(base, "/") + 1
			p := strings.Split(pkg, "/")
			return len(p) >= parts && matches(base, strings.Join(p[:parts], "/"))
		}
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	ok, err := path.Match(pattern, pkg)
	return err == nil && ok
}

func anyMatches(patterns []string, pkg string) bool {
	for _, p := range patterns {
		if matches(p, pkg) {
			return true
		}
	}
	return false
}

// sameProduct reports whether both packages belong to one first-party product.
func sameProduct(a, b string) bool {
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	return len(x) > 1 && len(y) > 1 && x[0] == "products" && y[0] == "products" && x[1] == y[1]
}

func allowed(rules []rule, importer, imported string) bool {
	if sameProduct(importer, imported) {
		return true
	}
	for _, r := range rules {
		if anyMatches(r.to, importer) && anyMatches(r.from, imported) {
			return true
		}
	}
	return false
}

func TestImportsFollowThePolicy(t *testing.T) {
	rules := parsePolicy(t, importPolicy)
	forTests := append(parsePolicy(t, testPolicy), rules...)
	for _, f := range goFiles(t) {
		pkg := path.Dir(f.name)
		for _, imp := range f.ast.Imports {
			name := strings.Trim(imp.Path.Value, `"`)
			for _, impure := range purity[pkg] {
				if name == impure && !f.test() {
					t.Errorf("%s imports %s: %s has no input or output", f.name, name, pkg)
				}
			}
			ours, found := strings.CutPrefix(name, "bailey/")
			if !found || ours == pkg {
				continue
			}
			if f.test() && !allowed(forTests, pkg, ours) || !f.test() && !allowed(rules, pkg, ours) {
				t.Errorf("%s imports %s: not allowed by the policy in policy_test.go", f.name, name)
			}
		}
	}
}

func TestEveryPolicyPatternMeansAPackage(t *testing.T) {
	dirs := map[string]bool{}
	for _, f := range goFiles(t) {
		dirs[path.Dir(f.name)] = true
	}
	seen := map[string]bool{}
	for _, r := range append(parsePolicy(t, importPolicy), parsePolicy(t, testPolicy)...) {
		for _, pattern := range append(r.from, r.to...) {
			if seen[pattern] {
				continue
			}
			seen[pattern] = true
			found := false
			for d := range dirs {
				found = found || matches(pattern, d)
			}
			if !found {
				t.Errorf("the policy names %s, which is no package any more", pattern)
			}
		}
	}
}

func TestPolicyRefusesWhatItShould(t *testing.T) {
	rules := parsePolicy(t, importPolicy)
	for _, tc := range []struct {
		importer, imported string
		want               bool
	}{
		{"products/allowlist", "sdk", true},
		{"products/allowlist", "agent/event", false},
		{"products/allowlist", "internal/boottime", false},
		{"products/allowlist", "products/clamav", false},
		{"agent/hub", "agent/verdict", false},
		{"agent/hub", "agent/event", true},
		{"agent/sensor/file", "agent/sensor/process", false},
		{"agent/sensor/file", "agent/sensor/probe", true},
		{"agent/event", "agent/health", false},
		{"agent", "agent/product/link", true},
		{"agent/verdict", "agent", false},
		{"sdk", "agent/event", false},
		{"update/trust", "update/publish", false},
		{"update/publish", "update/trust", true},
		{"update/trust", "agent/config", false},
		{"internal/fleetcli", "agent/control", false},
	} {
		if got := allowed(rules, tc.importer, tc.imported); got != tc.want {
			t.Errorf("allowed(%s imports %s) = %v, want %v", tc.importer, tc.imported, got, tc.want)
		}
	}
}

// sourceFile is one parsed Go file of this module.
type sourceFile struct {
	name string // slash-separated, from the root
	ast  *ast.File
	set  *token.FileSet
	text string
}

func (f sourceFile) test() bool { return strings.HasSuffix(f.name, "_test.go") }

func (f sourceFile) generated() bool { return ast.IsGenerated(f.ast) }

func (f sourceFile) lines() int { return strings.Count(f.text, "\n") }

// goFiles parses every Go file of this module, in order of name.
func goFiles(t *testing.T) []sourceFile {
	t.Helper()
	var out []sourceFile
	for _, name := range repositoryFiles(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, sourceFile{name: name, ast: f, set: set, text: string(text)})
	}
	if len(out) == 0 {
		t.Fatal("no Go files: the test runs in the wrong directory")
	}
	return out
}

// repositoryFiles lists the files of the work tree, without version control, caches, build results and test data.
func repositoryFiles(t *testing.T) []string {
	t.Helper()
	skip := map[string]bool{".git": true, ".cache": true, "dist": true, "testdata": true}
	var out []string
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".git" && !d.IsDir() {
			return nil // a work tree beside the repository
		}
		if !d.IsDir() {
			out = append(out, filepath.ToSlash(name))
			return nil
		}
		if skip[d.Name()] {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(out)
	return out
}
