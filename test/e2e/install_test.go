package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// spec is a faulty product to install.
type spec struct {
	name      string
	events    string
	questions string
	workers   string
	settings  map[string]string
	request   string // further lines of [request]
	limits    string // lines of [limits]
}

// install installs and starts a faulty product and waits until it runs and has subscribed.
func (a *agent) install(s spec) {
	a.t.Helper()
	folder := filepath.Join(a.dir, "products", s.name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		a.t.Fatal(err)
	}
	copyFile(a.t, filepath.Join(built, "faulty"), filepath.Join(folder, "faulty"), 0o755)
	var m strings.Builder
	fmt.Fprintf(&m, "name = %q\nversion = \"1.0.0\"\ndescription = \"a product that misbehaves on demand\"\n", s.name)
	fmt.Fprintf(&m, "[run]\ncommand = [\"./faulty\", \"--events=%s\", \"--questions=%s\", \"--workers=%s\"]\n", s.events, s.questions, s.workers)
	fmt.Fprintf(&m, "[request]\nsee = %s\ndecide = %s\n", words(s.events), words(s.questions))
	if !strings.Contains(s.request, "deny =") {
		m.WriteString("deny = true\n")
	}
	if strings.Contains(s.questions, "open") && !strings.Contains(s.request, "open_scope") {
		fmt.Fprintf(&m, "open_scope = [%q]\n", a.scratch)
	}
	m.WriteString(s.request + "\n[limits]\n" + s.limits + "\n[settings]\n")
	for k, v := range s.settings {
		fmt.Fprintf(&m, "%s = %q\n", k, v)
	}
	if err := os.WriteFile(filepath.Join(folder, "manifest.toml"), []byte(m.String()), 0o644); err != nil {
		a.t.Fatal(err)
	}
	a.must("product", "install", folder, "--yes")
	a.running(s.name)
}

// running waits until a product runs with its authority.
func (a *agent) running(name string) {
	a.t.Helper()
	a.eventually(name+" runs", 20*time.Second, func() error {
		p := a.product(name)
		if p.GetState() != "running" || p.GetAuthority() == "off" || p.GetAuthority() == "" {
			return fmt.Errorf("state %s, authority %s: %s", p.GetState(), p.GetAuthority(), p.GetReason())
		}
		return nil
	})
}

func words(list string) string {
	if list == "" {
		return "[]"
	}
	data, err := json.Marshal(strings.Split(list, ","))
	if err != nil {
		panic(err)
	}
	return string(data)
}

func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, mode); err != nil {
		t.Fatal(err)
	}
}
