package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bailey/test/rig"

	"golang.org/x/sys/unix"
)

func TestCachedAllowIsNotAsked(t *testing.T) {
	a := startAgent(t, "")
	a.Install(rig.Spec{Name: "cacher", Questions: "open", Settings: map[string]string{"cache": "true", "note": ""}})
	path := filepath.Join(a.Scratch, "file")
	if err := os.WriteFile(path, []byte("v1"), 0o644); err != nil {
		t.Fatal(err)
	}
	open := func() {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	questions := func() uint64 { return a.Product("cacher").GetCounters().GetQuestions() }
	asked := func(what string, want uint64, f func()) {
		t.Helper()
		before := questions()
		f()
		if got := questions() - before; got != want {
			t.Errorf("%s: %d questions reached the product, want %d", what, got, want)
		}
	}
	settle := func() { time.Sleep(300 * time.Millisecond) } // close-after-write events are asynchronous

	settle()
	a.Eventually("the file is cached", 10*time.Second, func() error { // the writer's close may come late on a busy machine
		before := a.Status().GetQuestions().GetAsked()
		open()
		if n := a.Status().GetQuestions().GetAsked() - before; n > 0 {
			return fmt.Errorf("asked %d times", n)
		}
		return nil
	})
	kernel := a.Status().GetQuestions().GetAsked()
	asked("100,000 opens of a cached file", 0, func() {
		for range 100_000 {
			open()
		}
	})
	if got := a.Status().GetQuestions().GetAsked() - kernel; got != 0 {
		t.Errorf("the kernel asked %d times about a cached file", got)
	}

	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		settle()
	}
	write("v2, longer")
	asked("an open after a change", 1, open)
	asked("the open after that", 0, open)
	a.Must("product", "set", "cacher", "note=changed")
	a.Running("cacher")
	settle()
	asked("an open after new settings", 1, open)
	asked("the open after that", 0, open)
	a.Must("product", "restart", "cacher")
	a.Running("cacher")
	settle()
	before := a.Status().GetQuestions().GetAsked()
	open()
	if got := a.Status().GetQuestions().GetAsked() - before; got != 1 {
		t.Errorf("after a restart of the product the kernel asked %d times, want 1", got)
	}
	asked("an open cached after the restart", 0, open)
	a.Must("cache", "clear")
	asked("an open after cache clear", 1, open)
}

// TestStoreThroughMappingIsAskedAgain changes a file in the one way that changes neither its size nor, the second time, its
// ctime, and that drops no mark by itself.
func TestStoreThroughMappingIsAskedAgain(t *testing.T) {
	a := startAgent(t, "")
	a.Install(rig.Spec{Name: "cacher", Questions: "open", Settings: map[string]string{"cache": "true"}})
	path := filepath.Join(a.Scratch, "file")
	if err := os.WriteFile(path, []byte("A"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	open := func() {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	mapped[0] = 'B' // the page is dirty from here on
	time.Sleep(300 * time.Millisecond)
	open()
	mapped[0] = 'C'
	if err := unix.Munmap(mapped); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // the last writer's close is told asynchronously
	before := a.Product("cacher").GetCounters().GetQuestions()
	open()
	if got := a.Product("cacher").GetCounters().GetQuestions() - before; got != 1 {
		t.Errorf("after a store through a mapping %d questions reached the product, want 1", got)
	}
}
