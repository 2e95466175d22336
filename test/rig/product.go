package rig

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// Spec is a faulty product (test/faulty) to install.
type Spec struct {
	Name      string
	Version   string // default 1.0.0
	Events    string // lists with commas
	Questions string
	Workers   string
	Settings  map[string]string
	Request   string            // further lines of [request]
	Limits    string            // lines of [limits]
	Run       string            // further lines of [run]
	Files     map[string]string // of its folder, beside the program and the manifest
}

// Install installs and starts a faulty product and waits until it runs and has subscribed.
func (a *Agent) Install(s Spec) {
	a.T.Helper()
	a.Must("product", "install", a.Folder(s), "--yes")
	a.Running(s.Name)
}

// Folder makes the product folder of s and returns its path.
func (a *Agent) Folder(s Spec) string {
	a.T.Helper()
	folder := filepath.Join(a.Dir, "products", s.Name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		a.T.Fatal(err)
	}
	a.CopyFile(filepath.Join(a.Built, "faulty"), filepath.Join(folder, "faulty"), 0o755)
	for name, text := range s.Files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o755); err != nil {
			a.T.Fatal(err)
		}
		a.write(filepath.Join(folder, name), text)
	}
	a.write(filepath.Join(folder, "manifest.toml"), a.manifest(s))
	return folder
}

func (a *Agent) manifest(s Spec) string {
	if s.Version == "" {
		s.Version = "1.0.0"
	}
	var m strings.Builder
	fmt.Fprintf(&m, "name = %q\nversion = %q\ndescription = \"a product that misbehaves on demand\"\n", s.Name, s.Version)
	fmt.Fprintf(&m, "[run]\ncommand = [\"./faulty\", \"--events=%s\", \"--questions=%s\", \"--workers=%s\"]\n%s\n", s.Events, s.Questions, s.Workers, s.Run)
	fmt.Fprintf(&m, "[request]\nsee = %s\ndecide = %s\n", list(s.Events), list(s.Questions))
	if !strings.Contains(s.Request, "deny =") && s.Questions != "" {
		m.WriteString("deny = true\n")
	}
	if strings.Contains(s.Questions, "open") && !strings.Contains(s.Request, "open_scope") {
		fmt.Fprintf(&m, "open_scope = [%q]\n", a.Scratch)
	}
	m.WriteString(s.Request + "\n[limits]\n" + s.Limits + "\n[settings]\n")
	keys := make([]string, 0, len(s.Settings))
	for k := range s.Settings {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		fmt.Fprintf(&m, "%s = %q\n", k, s.Settings[k])
	}
	return m.String()
}

func list(words string) string {
	if words == "" {
		return "[]"
	}
	data, err := json.Marshal(strings.Split(words, ","))
	if err != nil {
		panic(err) // strings can be marshalled
	}
	return string(data)
}

// Running waits until a product runs with its authority.
func (a *Agent) Running(name string) {
	a.T.Helper()
	a.Eventually(name+" runs", 20*time.Second, func() error {
		p := a.Product(name)
		if p.GetState() != "running" || p.GetAuthority() == "off" || p.GetAuthority() == "" {
			return fmt.Errorf("state %s, authority %s: %s", p.GetState(), p.GetAuthority(), p.GetReason())
		}
		return nil
	})
}

// InstallShipped installs one of the repository's own products as its folder is shipped, with changes to its manifest: old
// and new text in turn.
func (a *Agent) InstallShipped(name string, changes ...string) {
	a.T.Helper()
	folder := filepath.Join(a.Dir, "products", name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		a.T.Fatal(err)
	}
	source := filepath.Join("..", "..", "products", name)
	for _, f := range []string{"manifest.toml", "policy.toml"} {
		text, err := os.ReadFile(filepath.Join(source, f))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			a.T.Fatal(err)
		}
		if f == "manifest.toml" {
			changed := strings.NewReplacer(changes...).Replace(string(text))
			if changed == string(text) && len(changes) > 0 {
				a.T.Fatalf("none of %q is in the manifest of %s", changes, name)
			}
			text = []byte(changed)
		}
		a.write(filepath.Join(folder, f), string(text))
	}
	a.CopyFile(filepath.Join(a.Built, name), filepath.Join(folder, name), 0o755)
	a.Must("product", "install", folder, "--yes")
	a.Running(name)
}

// CopyFile copies one file.
func (a *Agent) CopyFile(from, to string, mode os.FileMode) {
	a.T.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = writeProgram(to, data, mode)
	}
	if err != nil {
		a.T.Fatal(err)
	}
}

// writeProgram writes a file that may be executed right away. A test that runs beside this one must not fork meanwhile: its child
// would have the descriptor, and what is open for writing cannot be executed.
func writeProgram(path string, data []byte, mode os.FileMode) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, data, mode)
}

func (a *Agent) write(path, text string) {
	a.T.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		a.T.Fatal(err)
	}
}
