package corpus

import (
	"embed"
	"encoding/base64"
	"fmt"
	"path"
	"slices"

	"bailey/agent/event"
	"bailey/internal/strictjson"
)

//go:embed files.json work.json good.json
var data embed.FS

// Corpus is all that comes with Bailey.
type Corpus struct {
	Files []File
	Work  []Work
	Good  []Good
}

// File is one role. The first path that is there plays it.
type File struct {
	Role  string   `json:"role"`
	Paths []string `json:"paths"`
}

// Work is something that is done on machines, in its order.
type Work struct {
	Name  string `json:"name"`
	About string `json:"about"`
	UID   uint32 `json:"uid,omitempty"` // of who does it; 0: root
	Steps []Step `json:"steps"`
}

// Step is one thing that a process does: it executes a program, which is a process of its own from then on, ends, or uses a file.
type Step struct {
	Do    string   `json:"do"` // exec, exit, open, create, close_write, rename, unlink or attrib
	Paths []string `json:"paths,omitempty"`
	Argv  []string `json:"argv,omitempty"` // exec
	From  string   `json:"from,omitempty"` // rename: the old path
}

// Kind is what the step is as an event.
func (s *Step) Kind() (event.Kind, error) {
	k, err := event.ParseKind(s.Do)
	if err != nil || k >= event.Verdict {
		return 0, fmt.Errorf("%.40q is nothing that is done in the corpus", s.Do)
	}
	return k, nil
}

// Good is a file that is good beyond doubt.
type Good struct {
	Path   string   `json:"path"` // where it could lie
	Ask    []string `json:"ask"`  // exec, open
	Text   string   `json:"text,omitempty"`
	Base64 string   `json:"base64,omitempty"` // if it is no text
}

// Bytes are its content.
func (g *Good) Bytes() ([]byte, error) {
	if g.Base64 == "" {
		return []byte(g.Text), nil
	}
	b, err := base64.StdEncoding.DecodeString(g.Base64)
	if err != nil || g.Text != "" {
		return nil, fmt.Errorf("%s is not the one of text and base64", g.Path)
	}
	return b, nil
}

// limits are for what comes with Bailey: a mistake in it is found when it is built.
func limits() strictjson.Limits { return strictjson.Limits{Bytes: 1 << 20, Depth: 8, Values: 1 << 16} }

// Load reads what comes with Bailey.
func Load() (*Corpus, error) {
	c := &Corpus{}
	for name, to := range map[string]any{"files.json": &c.Files, "work.json": &c.Work, "good.json": &c.Good} {
		text, err := data.ReadFile(name)
		if err == nil {
			err = strictjson.Unmarshal(text, limits(), to)
		}
		if err != nil {
			return nil, fmt.Errorf("read the corpus %s: %w", name, err)
		}
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("read the corpus: %w", err)
	}
	return c, nil
}

func (c *Corpus) check() error {
	for _, f := range c.Files {
		if err := checkPaths(f.Role, f.Paths); err != nil {
			return err
		}
	}
	for _, w := range c.Work {
		if err := w.check(); err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
	}
	for _, g := range c.Good {
		if err := checkPaths("a good file", []string{g.Path}); err != nil {
			return err
		}
		if _, err := g.Bytes(); err != nil {
			return err
		}
		if _, err := Questions(g.Ask...); err != nil {
			return fmt.Errorf("%s: %w", g.Path, err)
		}
	}
	return nil
}

func (w *Work) check() error {
	depth := 0
	for _, s := range w.Steps {
		k, err := s.Kind()
		if err != nil {
			return err
		}
		switch k {
		case event.Exec:
			depth++
		case event.Exit:
			depth--
		}
		if depth < 0 || depth == 0 && k != event.Exit {
			return fmt.Errorf("%s is done by nobody", s.Do)
		}
		if k == event.Exit {
			continue
		}
		if err := checkPaths(s.Do, s.Paths); err != nil {
			return err
		}
	}
	if depth != 0 {
		return fmt.Errorf("%d programs do not end", depth)
	}
	return nil
}

func checkPaths(what string, paths []string) error {
	if what == "" || len(paths) == 0 || slices.ContainsFunc(paths, func(p string) bool { return !path.IsAbs(p) || path.Clean(p) != p }) {
		return fmt.Errorf("%q has no plain absolute paths: %q", what, paths)
	}
	return nil
}

// Questions are the kinds of questions that words mean.
func Questions(words ...string) ([]event.Kind, error) {
	var out []event.Kind
	for _, w := range words {
		k, err := event.ParseKind(w)
		if err != nil || k != event.Exec && k != event.Open {
			return nil, fmt.Errorf("%.40q is no question: exec or open", w)
		}
		out = append(out, k)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("nothing is asked")
	}
	return out, nil
}
