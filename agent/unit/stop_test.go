package unit

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// TestStop: the drop-in is there while a stop is allowed, systemd is told of each change and of nothing else.
func TestStop(t *testing.T) {
	t.Parallel()
	reloads := 0
	s := &Stop{dir: filepath.Join(t.TempDir(), "bailey.service.d"), reload: func(context.Context) error { reloads++; return nil }}
	file := filepath.Join(s.dir, dropInName)
	for i, step := range []struct {
		allow, there bool
		reloads      int
	}{{false, false, 0}, {true, true, 1}, {true, true, 1}, {false, false, 2}, {false, false, 2}} {
		if err := s.Allow(step.allow); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(file)
		if (err == nil) != step.there || reloads != step.reloads {
			t.Errorf("step %d: the drop-in: %v; %d reloads", i, err, reloads)
		}
	}
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Errorf("an empty directory is left: %v", err)
	}
}
