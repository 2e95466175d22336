package corpus

import (
	"strings"
	"testing"

	"bailey/agent/event"
)

// TestLoad: what comes with Bailey can be read, and is of use: each thing that administrators do has questions, and there is no file twice.
func TestLoad(t *testing.T) {
	t.Parallel()
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, f := range c.Files {
		for _, p := range f.Paths {
			if was, twice := seen[p]; twice {
				t.Errorf("%s is %s and %s", p, was, f.Role)
			}
			seen[p] = f.Role
		}
	}
	names := map[string]bool{}
	for _, w := range c.Work {
		questions := 0
		for _, s := range w.Steps {
			if k, err := s.Kind(); err == nil && (k == event.Exec || k == event.Open) {
				questions++
			}
		}
		if names[w.Name] || w.About == "" || questions < 5 {
			t.Errorf("%s: %q, %d questions", w.Name, w.About, questions)
		}
		names[w.Name] = true
	}
	for _, want := range []string{"package_install", "service_restart", "ssh_login", "cron", "compile", "backup", "log_rotation"} {
		if !names[want] {
			t.Errorf("nobody does %s", want)
		}
	}
	empty := false
	for _, g := range c.Good {
		b, err := g.Bytes()
		if err != nil {
			t.Error(err)
		}
		empty = empty || len(b) == 0
		if strings.HasPrefix(g.Path, "/tmp/") {
			t.Errorf("%s is nowhere good", g.Path)
		}
	}
	if !empty || len(c.Files) < 100 || len(c.Good) < 20 {
		t.Errorf("%d files, %d good ones, an empty one: %t", len(c.Files), len(c.Good), empty)
	}
}

// TestCheckRefuses what would be asked in nobody's name, or about nothing.
func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	exec := Step{Do: "exec", Paths: []string{"/bin/sh"}}
	for name, c := range map[string]Corpus{
		"nobody":        {Work: []Work{{Name: "w", Steps: []Step{{Do: "open", Paths: []string{"/etc/hosts"}}}}}},
		"never_ends":    {Work: []Work{{Name: "w", Steps: []Step{exec}}}},
		"ends_twice":    {Work: []Work{{Name: "w", Steps: []Step{exec, {Do: "exit"}, {Do: "exit"}}}}},
		"unknown_step":  {Work: []Work{{Name: "w", Steps: []Step{{Do: "verdict"}}}}},
		"relative_path": {Files: []File{{Role: "shell", Paths: []string{"bin/sh"}}}},
		"no_path":       {Files: []File{{Role: "shell"}}},
		"no_question":   {Good: []Good{{Path: "/a"}}},
		"broken_bytes":  {Good: []Good{{Path: "/a", Ask: []string{"open"}, Base64: "!"}}},
	} {
		if c.check() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
