package cli_test

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"bailey/agent/control/controltest"
	"bailey/internal/cli"

	"golang.org/x/sys/unix"
)

// screen collects what a program writes to a terminal.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) read(operator *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := operator.Read(buf)
		s.mu.Lock()
		s.b.Write(buf[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// await waits until the program has written text.
func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); <-tick.C {
		s.mu.Lock()
		found := strings.Contains(s.b.String(), text)
		s.mu.Unlock()
		if found {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Fatalf("it did not show %q:\n%q", text, s.b.String())
}

// TestTopOnATerminal: the whole program, from the first picture to the operator's q, with the terminal as it was before.
func TestTopOnATerminal(t *testing.T) {
	run := serve(t, controltest.New())
	operator, program := terminal(t)
	if err := unix.IoctlSetWinsize(int(program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 120}); err != nil {
		t.Fatal(err)
	}
	before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	var shown screen
	go shown.read(operator) // ends with the terminal
	ended := make(chan int, 1)
	go func() {
		ended <- cli.Main(cli.Process{Args: []string{"--run", run, "top", "--interval", "100ms"}, Stdin: program, Stdout: program, Stderr: io.Discard, Getenv: os.Getenv})
	}()
	shown.await(t, "no product is installed")
	shown.await(t, "q quit")
	if _, err := operator.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	select {
	case code := <-ended:
		if code != cli.ExitOK {
			t.Errorf("it ended with %d", code)
		}
	case <-time.After(time.Minute):
		t.Fatal("q does not quit")
	}
	after, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if *before != *after {
		t.Error("the terminal is not as it was")
	}
}
