package started

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func start(t *testing.T, script string) *Program {
	t.Helper()
	p, err := Start(filepath.Join(t.TempDir(), "log"), nil, "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProgram(t *testing.T) {
	p := start(t, "echo ready; exec sleep 60")
	said := func() error {
		if p.Output() != "ready" {
			return errors.New(p.Output())
		}
		return nil
	}
	if err := p.Await(t.Context(), 10*time.Second, said); err != nil {
		t.Error(err)
	}
	same, err := Adopt(os.DevNull, p.PID())
	if err != nil {
		t.Fatal(err)
	}
	if p.End(10 * time.Second) {
		t.Error("it was killed")
	}
	select {
	case <-same.Done():
	case <-time.After(10 * time.Second):
		t.Error("that it ended is not seen by who adopted it")
	}
}

func TestProgramThatDoesNotEnd(t *testing.T) {
	p := start(t, "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
	if err := p.Await(t.Context(), 10*time.Second, func() error {
		if p.Output() != "deaf" {
			return errors.New("not yet")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !p.End(100 * time.Millisecond) {
		t.Error("it ended by itself")
	}
}

func TestProgramThatEnds(t *testing.T) {
	p := start(t, "echo why")
	if err := p.Await(t.Context(), 10*time.Second, func() error { return errors.New("never") }); err == nil || !strings.Contains(err.Error(), "it ended: why") {
		t.Errorf("%v", err)
	}
}
