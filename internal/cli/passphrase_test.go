package cli_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// display is what a terminal shows.
type display struct {
	t        *testing.T
	operator *os.File
	shown    strings.Builder
}

// until reads until the terminal shows text.
func (s *display) until(text string) {
	s.t.Helper()
	buf := make([]byte, 1024)
	for end := time.Now().Add(20 * time.Second); !strings.Contains(s.shown.String(), text); {
		fds := []unix.PollFd{{Fd: int32(s.operator.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 100); err != nil && !errors.Is(err, unix.EINTR) {
			s.t.Fatal(err)
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			if time.Now().After(end) {
				s.t.Fatalf("the terminal shows %q, not %q", s.shown.String(), text)
			}
			continue
		}
		n, err := s.operator.Read(buf)
		if err != nil {
			s.t.Fatalf("the terminal shows %q, not %q: %v", s.shown.String(), text, err)
		}
		s.shown.Write(buf[:n])
	}
}

func (s *display) typed(line string) {
	s.t.Helper()
	if _, err := s.operator.WriteString(line); err != nil {
		s.t.Fatal(err)
	}
}

// onTerminal starts bailey with a terminal of its own.
func onTerminal(t *testing.T, args ...string) (*exec.Cmd, *display) {
	t.Helper()
	operator, program := terminal(t)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), childVariable+"=none")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, &display{t: t, operator: operator}
}

func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return m.Lflag&unix.ECHO != 0
}

// TestPassphraseIsNotShown: it is typed twice, and the terminal shows what is typed again afterwards.
func TestPassphraseIsNotShown(t *testing.T) {
	const words = "correct horse battery"
	out := filepath.Join(t.TempDir(), "key")
	cmd, s := onTerminal(t, "operator", "keygen", "--out", out)
	s.until("Passphrase: ")
	s.typed(words + "\n")
	s.until("Once more: ")
	s.typed(words + "\n")
	s.until("baileykey1")
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s.shown.String(), words) {
		t.Errorf("the terminal shows it: %q", s.shown.String())
	}
	if !echoes(t, s.operator) {
		t.Error("the terminal does not show any more what is typed")
	}
}

// TestInterruptedPassphrase: the terminal is as it was.
func TestInterruptedPassphrase(t *testing.T) {
	cmd, s := onTerminal(t, "operator", "keygen", "--out", filepath.Join(t.TempDir(), "key"))
	s.until("Passphrase: ")
	s.typed("\x03")
	if err := cmd.Wait(); err == nil {
		t.Error("it ended well")
	}
	if !echoes(t, s.operator) {
		t.Error("the terminal does not show any more what is typed")
	}
}
