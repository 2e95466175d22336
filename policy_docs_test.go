package bailey_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	markdownLink = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	codeBlock    = regexp.MustCompile("(?s)```.*?```")
)

// TestDocumentsPointSomewhere: architecture.md and its like name files; a file that moves takes them along.
func TestDocumentsPointSomewhere(t *testing.T) {
	for _, name := range repositoryFiles(t) {
		if filepath.Ext(name) != ".md" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range markdownLink.FindAllStringSubmatch(codeBlock.ReplaceAllString(string(text), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s points to %s, which does not exist", name, m[1])
			}
		}
	}
}

// TestEveryVerbHasHelp: make help prints each verb's ## comment, and there are at most fifteen.
func TestEveryVerbHasHelp(t *testing.T) {
	text, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	verbs := regexp.MustCompile(`(?m)^([a-z][a-z-]*):(.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(verbs) == 0 || len(verbs) > 15 {
		t.Errorf("the Makefile has %d verbs, at most 15", len(verbs))
	}
	for _, v := range verbs {
		if !strings.Contains(v[2], "## ") {
			t.Errorf("make %s has no ## comment", v[1])
		}
	}
}

// TestThreatModelPointsSomewhere: a line of the threat model rests on the tests and files that it names.
func TestThreatModelPointsSomewhere(t *testing.T) {
	const name = "docs/threat-model.md"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	defined := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, f := range goFiles(t) {
		for _, m := range defined.FindAllStringSubmatch(f.text, -1) {
			tests[m[1]] = true
		}
	}
	for _, word := range regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`).FindAllString(string(text), -1) {
		if !tests[word] {
			t.Errorf("%s rests on %s, which does not exist", name, word)
		}
	}
	for _, m := range regexp.MustCompile("`((?:agent|api|sdk|internal|packaging|test|tools)/[\\w./-]+)`").FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat(m[1]); err != nil {
			t.Errorf("%s rests on %s, which does not exist", name, m[1])
		}
	}
}
