package bailey_test

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	maxRootDirs  = 12
	maxMainLines = 40
	reportLines  = 400 // files longer than this are named in the test's log
	maxLines     = 600 // and longer than this they fail it
)

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	says := regexp.MustCompile(`^(Package|Command|Program) `)
	documented, seen := map[string]string{}, map[string]bool{}
	for _, f := range goFiles(t) {
		if f.test() {
			continue
		}
		dir := path.Dir(f.name)
		if !f.generated() {
			seen[dir] = true // a package of generated code alone is described by the .proto file
		}
		if f.ast.Doc != nil {
			documented[dir] += f.ast.Doc.Text()
		}
	}
	for dir := range seen {
		if text := documented[dir]; !says.MatchString(text) {
			t.Errorf("%s has no package comment that starts with \"Package\", \"Command\" or \"Program\"", dir)
		}
	}
}

func TestPackageNamesMeanSomething(t *testing.T) {
	empty := map[string]bool{"util": true, "utils": true, "common": true, "helper": true, "helpers": true, "types": true, "misc": true, "base": true, "core": true, "lib": true, "shared": true}
	for _, f := range goFiles(t) {
		if empty[f.ast.Name.Name] || empty[path.Base(path.Dir(f.name))] {
			t.Errorf("%s: package %s is named for nothing; name the noun", f.name, f.ast.Name.Name)
		}
	}
}

func TestRootIsATableOfContents(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && e.Name() != "dist" {
			dirs = append(dirs, e.Name())
		}
	}
	if len(dirs) > maxRootDirs {
		t.Errorf("%d directories in the root, at most %d: %v", len(dirs), maxRootDirs, dirs)
	}
}

func TestFilesAndMainsStayShort(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.generated() {
			continue
		}
		if n := f.lines(); n > maxLines {
			t.Errorf("%s has %d lines: split it by noun", f.name, n)
		} else if n > reportLines {
			t.Logf("%s has %d lines", f.name, n)
		}
		if f.ast.Name.Name != "main" {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != "main" || fn.Recv != nil {
				continue
			}
			if n := f.set.Position(fn.End()).Line - f.set.Position(fn.Pos()).Line + 1; n > maxMainLines {
				t.Errorf("%s: main has %d lines, at most %d: the wiring has a home elsewhere", f.name, n, maxMainLines)
			}
		}
	}
}

func TestNoHiddenBehaviour(t *testing.T) {
	loggers := map[string]bool{"slog.Default": true, "slog.SetDefault": true, "slog.Debug": true, "slog.Info": true, "slog.Warn": true, "slog.Error": true,
		"log.Print": true, "log.Printf": true, "log.Println": true, "log.Fatal": true, "log.Fatalf": true, "log.Fatalln": true, "log.SetOutput": true}
	for _, f := range goFiles(t) {
		if f.generated() || anyMatches([]string{"sdk/examples/..."}, path.Dir(f.name)) {
			continue // an example is written as an author would write it
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Name.Name == "init" && n.Recv == nil {
					t.Errorf("%s: func init: behaviour is registered where it is wired", f.set.Position(n.Pos()))
				}
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && loggers[x.Name+"."+n.Sel.Name] {
					t.Errorf("%s: %s.%s: the logger is injected", f.set.Position(n.Pos()), x.Name, n.Sel.Name)
				}
			}
			return true
		})
	}
}

// exits lists who may end the process: programs, the first process inside a product's containment, and the leak check, which
// stands in for testing's own exit.
var exits = []string{"cmd/...", "agent/product/contain", "products/...", "sdk/examples/...", "internal/leakcheck", "test/...", "internal/cli/...", "update/trust/conformance"}

func TestOnlyProgramsExit(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.test() || anyMatches(exits, path.Dir(f.name)) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "os" && s.Sel.Name == "Exit" {
					t.Errorf("%s: os.Exit: return an error", f.set.Position(n.Pos()))
				}
			}
			return true
		})
	}
}

// bpfLicense is what kernel-side code says: the kernel needs GPL compatibility, everybody else has the project's licence.
const bpfLicense = "SPDX-License-Identifier: GPL-2.0 OR Apache-2.0"

func TestLicences(t *testing.T) {
	for name, want := range map[string]string{"LICENSE": "Apache License", "LICENSE.bpf": "GNU GENERAL PUBLIC LICENSE"} {
		text, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s does not hold the text of the licence (%v)", name, err)
		}
	}
	for _, name := range repositoryFiles(t) {
		if ext := filepath.Ext(name); ext != ".c" && ext != ".h" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		head := strings.NewReplacer("(", "", ")", "").Replace(strings.Join(strings.SplitN(string(text), "\n", 8), "\n"))
		if !strings.Contains(head, bpfLicense) {
			t.Errorf("%s does not say %q in its first lines", name, bpfLicense)
		}
	}
}

// TestNothingOfTheBuildMachine: what is committed names no path of the machine it was made on, and promises nothing.
func TestNothingOfTheBuildMachine(t *testing.T) {
	words := regexp.MustCompile(strings.Join([]string{`(^|[^\w.])/wo` + `rk/`, `/fa` + `rm[/-]`, `fa` + `rm-(bench|studio)`, `\bTO` + `DO\b`, `\bFIX` + `ME\b`, `\bXX` + `X\b`}, "|"))
	for _, name := range repositoryFiles(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsRune(string(text[:min(len(text), 4096)]), 0) {
			continue // a binary
		}
		for i, line := range strings.Split(string(text), "\n") {
			if m := words.FindString(line); m != "" {
				t.Errorf("%s:%d: %q does not belong here", name, i+1, m)
			}
		}
	}
}
