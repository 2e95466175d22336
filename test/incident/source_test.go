package incident

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// replaysInSource lists the ids of all stories that this folder's tests tell.
func replaysInSource(t *testing.T) []string {
	t.Helper()
	var out []string
	for name, f := range sources(t) {
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.CompositeLit)
			if !ok || !isStory(c) {
				return true
			}
			for _, e := range c.Elts {
				kv, ok := e.(*ast.KeyValueExpr)
				if !ok || kv.Key.(*ast.Ident).Name != "ID" {
					continue
				}
				lit, ok := kv.Value.(*ast.BasicLit)
				if !ok {
					t.Errorf("%s: a story's ID is written out", name)
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
		t.Fatal("no stories: the test runs in the wrong directory")
	}
	return out
}

func isStory(c *ast.CompositeLit) bool {
	if id, ok := c.Type.(*ast.Ident); ok {
		return id.Name == "story"
	}
	if c.Type != nil {
		return false
	}
	for _, e := range c.Elts { // an element of a list of stories
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if id, ok := kv.Key.(*ast.Ident); ok && id.Name == "ID" {
				return true
			}
		}
	}
	return false
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
	for _, id := range replaysInSource(t) {
		class, _, _ := strings.Cut(id, "-")
		count[class]++
	}
	for _, class := range []string{"C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C13", "C14", "C15"} {
		if count[class] < 2 {
			t.Errorf("class %s has %d replays, each has at least two", class, count[class])
		}
	}
}
