package cache

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

func TestOnceMakesWholeEntriesOnce(t *testing.T) {
	t.Parallel()
	entry := filepath.Join(t.TempDir(), "new", "entry")
	broken := errors.New("the network is gone")
	err := Once(entry, func(unfinished string) error {
		return errors.Join(os.WriteFile(unfinished, []byte("half"), 0o644), broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("Once = %v, want %v", err, broken)
	}
	if _, err := os.Stat(entry); err == nil {
		t.Error("half an entry is there")
	}
	var made atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			err := Once(entry, func(unfinished string) error {
				made.Add(1)
				return os.WriteFile(unfinished, []byte("whole"), 0o644)
			})
			if text, readErr := os.ReadFile(entry); err != nil || readErr != nil || string(text) != "whole" {
				t.Errorf("Once = %v; the entry is %q, %v", err, text, readErr)
			}
		})
	}
	all.Wait()
	if n := made.Load(); n != 1 {
		t.Errorf("it was made %d times", n)
	}
}
