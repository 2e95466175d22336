// Package clamdtest runs a real clamd for tests: in the foreground, on a socket and with a small signature database of its
// own, both in temporary directories. It is not a stand-in for clamd.
//
// Invariant: clamd ends with its test, and with the test's process if that is killed.
package clamdtest

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/products/clamav/clamd"

	"golang.org/x/sys/unix"
)

// Names of the signatures. clamd adds .UNOFFICIAL to those of an operator's own database.
const (
	Eicar    = "Bailey.Test.Eicar.UNOFFICIAL"
	Marker   = "Bailey.Test.Marker.UNOFFICIAL"
	Later    = "Bailey.Test.Later.UNOFFICIAL" // after AddSignature
	marker   = "bailey-test-marker-0b57"
	later    = "bailey-test-later-91aa"
	patience = 60 * time.Second
)

// MarkerContent has a string that Marker finds; LaterContent one that Later finds.
func MarkerContent() []byte { return []byte("some text\n" + marker + "\nmore text\n") }

// LaterContent is clean until AddSignature.
func LaterContent() []byte { return []byte("some text\n" + later + "\nmore text\n") }

// EicarContent is the EICAR test file, put together so that no file of this repository is one.
func EicarContent() []byte {
	return []byte(strings.Join([]string{`X5O!P%@AP[4\PZX54(P^)7CC)7}$`, `EICAR-STANDARD-`, `ANTIVIRUS-TEST-FILE!`, `$H+H*`}, ""))
}

// Server is one clamd.
type Server struct {
	Socket   string
	Database string
	t        testing.TB
	conf     string
	cmd      *exec.Cmd
	output   strings.Builder
}

// Available reports whether clamd is installed.
func Available() bool {
	_, err := exec.LookPath("clamd")
	return err == nil
}

// Start starts clamd and returns when it answers. It is stopped when t ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s := Prepare(t)
	s.Up()
	return s
}

// Prepare writes configuration and database and starts nothing yet.
func Prepare(t testing.TB) *Server {
	t.Helper()
	dir := t.TempDir()
	s := &Server{t: t, Socket: filepath.Join(dir, "clamd.ctl"), Database: filepath.Join(dir, "db"), conf: filepath.Join(dir, "clamd.conf")}
	if err := os.Mkdir(s.Database, 0o755); err != nil {
		t.Fatal(err)
	}
	eicar := EicarContent()
	sum := md5.Sum(eicar)
	s.write(filepath.Join(s.Database, "own.hdb"), fmt.Sprintf("%x:%d:Bailey.Test.Eicar\n", sum, len(eicar)))
	s.write(filepath.Join(s.Database, "own.ndb"), "Bailey.Test.Marker:0:*:"+hex.EncodeToString([]byte(marker))+"\n")
	s.write(s.conf, fmt.Sprintf(`LocalSocket %s
DatabaseDirectory %s
TemporaryDirectory %s
Foreground yes
Bytecode no
FixStaleSocket yes
SelfCheck 3600
MaxThreads 8
StreamMaxLength 4M
`, s.Socket, s.Database, dir))
	t.Cleanup(s.Down)
	return s
}

func (s *Server) write(path, content string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// Up starts clamd and waits until it answers.
func (s *Server) Up() {
	s.t.Helper()
	s.cmd = exec.Command("clamd", "--config-file="+s.conf)
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	s.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start clamd: %v", err)
	}
	client, err := clamd.New(clamd.Config{Socket: s.Socket})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for client.Ping(ctx) != nil {
		select {
		case <-poll.C:
		case <-ctx.Done():
			s.Down()
			s.t.Fatalf("clamd does not answer:\n%s", s.output.String())
		}
	}
}

// Down kills clamd.
func (s *Server) Down() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended by itself
	_ = s.cmd.Wait()         // killed
	s.cmd = nil
}

// Signal sends a signal, e.g. SIGSTOP or SIGCONT.
func (s *Server) Signal(sig unix.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// AddSignature adds the signature Later and has clamd load it; it returns when clamd finds it.
func (s *Server) AddSignature() {
	s.t.Helper()
	s.write(filepath.Join(s.Database, "later.ndb"), "Bailey.Test.Later:0:*:"+hex.EncodeToString([]byte(later))+"\n")
	s.Signal(unix.SIGUSR2)
	path := filepath.Join(s.t.TempDir(), "later")
	s.write(path, string(LaterContent()))
	f, err := os.Open(path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	client, err := clamd.New(clamd.Config{Socket: s.Socket})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		found, err := client.Scan(ctx, int(f.Fd()))
		if err == nil && found == Later {
			return
		}
		if ctx.Err() != nil {
			s.t.Fatalf("clamd did not load the new signature: %q, %v", found, err)
		}
	}
}
