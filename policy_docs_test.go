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

// TestEveryVerbHasHelp: make help prints each verb's ## comment, and there are at most twelve.
func TestEveryVerbHasHelp(t *testing.T) {
	text, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	verbs := regexp.MustCompile(`(?m)^([a-z][a-z-]*):(.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(verbs) == 0 || len(verbs) > 12 {
		t.Errorf("the Makefile has %d verbs, at most 12", len(verbs))
	}
	for _, v := range verbs {
		if !strings.Contains(v[2], "## ") {
			t.Errorf("make %s has no ## comment", v[1])
		}
	}
}
