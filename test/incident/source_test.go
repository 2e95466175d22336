package incident

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// replaysInSource lists the ids of all replays of a type, story or delivery, that this folder's tests have.
func replaysInSource(t *testing.T, kind string) []string {
	t.Helper()
	var out []string
	for name, f := range sources(t) {
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.CompositeLit)
			if !ok || !isReplay(c, kind) {
				return true
			}
			for _, e := range c.Elts {
				kv, ok := e.(*ast.KeyValueExpr)
				if !ok || kv.Key.(*ast.Ident).Name != "ID" {
					continue
				}
				lit, ok := kv.Value.(*ast.BasicLit)
				if !ok {
					t.Errorf("%s: a %s's ID is written out", name, kind)
					continue
				}
				id, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, id)
			}
			return true
		})
	}
	if len(out) == 0 {
		t.Fatalf("no %s: the test runs in the wrong directory", kind)
	}
	return out
}

// isReplay reports whether a literal is of a replay's type, and says an ID.
func isReplay(c *ast.CompositeLit, kind string) bool {
	id, ok := c.Type.(*ast.Ident)
	return ok && id.Name == kind && slices.ContainsFunc(c.Elts, func(e ast.Expr) bool {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return false
		}
		key, ok := kv.Key.(*ast.Ident)
		return ok && key.Name == "ID"
	})
}

func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*ast.File{}
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = f
	}
	return out
}

// TestEveryIncidentSaysWhatItIs: the header of each file names the date, the source and the guarantees, and each class has at
// least two replays.
func TestEveryIncidentSaysWhatItIs(t *testing.T) {
	incidentFile := regexp.MustCompile(`^c\d+_`)
	guarantee := regexp.MustCompile(`\bG\d+\b`)
	for name, f := range sources(t) {
		if !incidentFile.MatchString(name) {
			continue
		}
		text := ""
		for _, c := range f.Comments {
			if c.Pos() > f.Package {
				text = c.Text()
				break
			}
		}
		for _, part := range []string{"Date: ", "Source: ", "Must: "} {
			if !strings.Contains(text, part) {
				t.Errorf("%s: its first comment has no line %q", name, part)
			}
		}
		if !guarantee.MatchString(text) {
			t.Errorf("%s: its first comment names no guarantee (G1 to G13)", name)
		}
	}
	count := map[string]int{}
	for _, id := range append(replaysInSource(t, "story"), replaysInSource(t, "delivery")...) {
		class, _, _ := strings.Cut(id, "-")
		count[class]++
	}
	for _, class := range []string{"C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11", "C12", "C13", "C14", "C15"} {
		if count[class] < 2 {
			t.Errorf("class %s has %d replays, each has at least two", class, count[class])
		}
	}
}
