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
	"bailey/test/rig"
)

func TestAllowlistInItsContainment(t *testing.T) {
	a := startAgent(t, "")
	locked := filepath.Join(a.Scratch, "locked")
	if err := os.Mkdir(locked, 0o755); err != nil {
		t.Fatal(err)
	}
	a.InstallShipped("allowlist", `lockdown_paths = ""`, fmt.Sprintf("lockdown_paths = %q", locked+"/**"))
	findings, verdicts := a.Tap("finding"), a.Tap("verdict")
	unknown := filepath.Join(locked, "unknown")
	if err := os.WriteFile(unknown, rig.TinyProgram("nobody brought this"), 0o755); err != nil {
		t.Fatal(err)
	}
	watched := a.Program("watched")
	// The package database is read after the start; until then the product lets everything through and says so.
	a.Eventually("the unknown program is refused", 20*time.Second, func() error {
		return refusal(execs(unknown))
	})
	f := a.Find(findings, "finding of the refusal", func(e *productv1.Event) bool {
		return e.GetFinding().GetAction() == "denied" && e.GetFinding().GetFile().GetPath() == unknown
	})
	if f.GetFinding().GetProduct() != "allowlist" || f.GetFinding().GetQuestionId() == 0 {
		t.Errorf("the finding does not say whose it is and what it belongs to: %v", f)
	}

	if err := execs(watched); err != nil {
		t.Errorf("monitor mode refused: %v", err)
	}
	a.Find(findings, "finding of what would be refused", func(e *productv1.Event) bool {
		return e.GetFinding().GetAction() == "would_deny" && e.GetFinding().GetFile().GetPath() == watched
	})
	a.Find(verdicts, "verdict that denies", func(e *productv1.Event) bool {
		return verdictFor(unknown)(e) && !e.GetVerdict().GetAllow() // the first may have come before the database was read
	})
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
	a.InstallShipped("clamav",
		`connect = ["/run/clamav/clamd.ctl"]`, fmt.Sprintf("connect = [%q]", clamd.Socket),
		`socket = "/run/clamav/clamd.ctl"`, fmt.Sprintf("socket = %q", clamd.Socket),
		`read = ["/var/lib/clamav"]`, fmt.Sprintf("read = [%q]", clamd.Database),
		`database = "/var/lib/clamav"`, fmt.Sprintf("database = %q", clamd.Database),
		`daemons = ["/usr/sbin/clamd"]`, fmt.Sprintf("daemons = [%q]", binary),
		`open_scope = [`, fmt.Sprintf("open_scope = [%q, ", a.Scratch),
	)
	findings := a.Tap("finding")
	clean, infected := filepath.Join(a.Scratch, "clean"), filepath.Join(a.Scratch, "infected")
	if err := os.WriteFile(clean, []byte("nothing to see"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(infected, clamdtest.EicarContent(), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Eventually("the test virus is refused", 20*time.Second, func() error {
		f, err := os.Open(infected)
		if err == nil {
			_ = f.Close()
		}
		return refusal(err)
	})
	a.Find(findings, "finding with the signature's name", func(e *productv1.Event) bool {
		f := e.GetFinding()
		return f.GetAction() == "denied" && f.GetFile().GetPath() == infected && strings.Contains(f.String(), clamdtest.Eicar)
	})
	if _, err := os.ReadFile(clean); err != nil {
		t.Errorf("a clean file: %v", err)
	}

	// A clamd that does not answer costs the deadline, not the machine.
	clamd.Signal(syscall.SIGSTOP)
	defer clamd.Signal(syscall.SIGCONT)
	fresh := filepath.Join(a.Scratch, "fresh")
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
