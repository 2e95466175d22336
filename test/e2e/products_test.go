package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	productv1 "bailey/api/product/v1"
	"bailey/internal/roottest"
	"bailey/products/clamav/clamdtest"
)

// installShipped installs one of the repository's own products as its folder is shipped, with changes to its manifest.
func (a *agent) installShipped(name string, changes ...string) {
	a.t.Helper()
	folder := filepath.Join(a.dir, "products", name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		a.t.Fatal(err)
	}
	source := filepath.Join("..", "..", "products", name)
	for _, f := range []string{"manifest.toml", "policy.toml"} {
		text, err := os.ReadFile(filepath.Join(source, f))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			a.t.Fatal(err)
		}
		if f == "manifest.toml" {
			changed := strings.NewReplacer(changes...).Replace(string(text))
			if changed == string(text) && len(changes) > 0 {
				a.t.Fatalf("none of %q is in the manifest of %s", changes, name)
			}
			text = []byte(changed)
		}
		if err := os.WriteFile(filepath.Join(folder, f), text, 0o644); err != nil {
			a.t.Fatal(err)
		}
	}
	copyFile(a.t, filepath.Join(built, name), filepath.Join(folder, name), 0o755)
	a.must("product", "install", folder, "--yes")
	a.running(name)
}

func TestAllowlistInItsContainment(t *testing.T) {
	a := startAgent(t, "")
	locked := filepath.Join(a.scratch, "locked")
	if err := os.Mkdir(locked, 0o755); err != nil {
		t.Fatal(err)
	}
	a.installShipped("allowlist", `lockdown_paths = ""`, fmt.Sprintf("lockdown_paths = %q", locked+"/**"))
	findings, verdicts := a.tap("finding"), a.tap("verdict")
	unknown := filepath.Join(locked, "unknown")
	if err := os.WriteFile(unknown, tinyProgram("nobody brought this"), 0o755); err != nil {
		t.Fatal(err)
	}
	watched := a.program("watched")
	// The package database is read after the start; until then the product lets everything through and says so.
	a.eventually("the unknown program is refused", 20*time.Second, func() error {
		return refusal(execs(unknown))
	})
	f := a.find(findings, "finding of the refusal", func(e *productv1.Event) bool {
		return e.GetFinding().GetAction() == "denied" && e.GetFinding().GetFile().GetPath() == unknown
	})
	if f.GetFinding().GetProduct() != "allowlist" || f.GetFinding().GetQuestionId() == 0 {
		t.Errorf("the finding does not say whose it is and what it belongs to: %v", f)
	}

	if err := execs(watched); err != nil {
		t.Errorf("monitor mode refused: %v", err)
	}
	a.find(findings, "finding of what would be refused", func(e *productv1.Event) bool {
		return e.GetFinding().GetAction() == "would_deny" && e.GetFinding().GetFile().GetPath() == watched
	})
	if e := a.find(verdicts, "verdict", verdictFor(unknown)); e.GetVerdict().GetAllow() {
		t.Errorf("verdict on the unknown program: %v", e)
	}
}

func TestClamavInItsContainment(t *testing.T) {
	if !clamdtest.Available() {
		roottest.Unavailable(t, "clamd is not installed (Debian: clamav-daemon)")
	}
	a := startAgent(t, "[questions]\nexec_deadline = \"5s\"\nopen_deadline = \"5s\"\ncritical_deadline = \"5s\"\n")
	clamd := clamdtest.Start(t)
	binary, err := exec.LookPath("clamd")
	if err != nil {
		t.Fatal(err)
	}
	a.installShipped("clamav",
		`connect = ["/run/clamav/clamd.ctl"]`, fmt.Sprintf("connect = [%q]", clamd.Socket),
		`socket = "/run/clamav/clamd.ctl"`, fmt.Sprintf("socket = %q", clamd.Socket),
		`read = ["/var/lib/clamav"]`, fmt.Sprintf("read = [%q]", clamd.Database),
		`database = "/var/lib/clamav"`, fmt.Sprintf("database = %q", clamd.Database),
		`daemons = ["/usr/sbin/clamd"]`, fmt.Sprintf("daemons = [%q]", binary),
		`open_scope = [`, fmt.Sprintf("open_scope = [%q, ", a.scratch),
	)
	findings := a.tap("finding")
	clean, infected := filepath.Join(a.scratch, "clean"), filepath.Join(a.scratch, "infected")
	if err := os.WriteFile(clean, []byte("nothing to see"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(infected, clamdtest.EicarContent(), 0o600); err != nil {
		t.Fatal(err)
	}
	a.eventually("the test virus is refused", 20*time.Second, func() error {
		f, err := os.Open(infected)
		if err == nil {
			_ = f.Close()
		}
		return refusal(err)
	})
	a.find(findings, "finding with the signature's name", func(e *productv1.Event) bool {
		f := e.GetFinding()
		return f.GetAction() == "denied" && f.GetFile().GetPath() == infected && strings.Contains(f.String(), clamdtest.Eicar)
	})
	if _, err := os.ReadFile(clean); err != nil {
		t.Errorf("a clean file: %v", err)
	}

	// A clamd that does not answer costs the deadline, not the machine.
	clamd.Signal(syscall.SIGSTOP)
	defer clamd.Signal(syscall.SIGCONT)
	fresh := filepath.Join(a.scratch, "fresh")
	if err := os.WriteFile(fresh, []byte("made while clamd sleeps"), 0o644); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := os.ReadFile(fresh); err != nil {
		t.Errorf("with clamd stopped: %v", err)
	}
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("with clamd stopped an open took %s, the deadline is 5 s", took)
	}
}
