package unit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"bailey/internal/launch"
)

// stoppable is what lets systemd obey `systemctl stop` and `restart`, as long as the file is there.
const (
	dropInName = "unlocked.conf"
	stoppable  = "# Written by the agent while an operator's token allows it to be stopped; removed when that is over.\n[Unit]\nRefuseManualStop=no\n"
)

// reloadPatience is how long systemd has to read its units again.
const reloadPatience = 20 * time.Second

// Stop says whether the service manager obeys who wants to stop the unit. Safe for concurrent use.
type Stop struct {
	dir    string // of drop-ins that a reboot takes along
	reload func(context.Context) error
	mu     sync.Mutex
}

// NewStop returns the one of the unit name.
func NewStop(name string) *Stop {
	return &Stop{dir: filepath.Join("/run/systemd/system", name+".d"), reload: daemonReload}
}

// Allow makes systemd obey, or refuse as the unit says. It changes nothing that is so already.
func (s *Stop) Allow(allowed bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Join(s.dir, dropInName)
	_, err := os.Lstat(path)
	if there := err == nil; there == allowed {
		return nil
	}
	if allowed {
		err = errors.Join(os.MkdirAll(s.dir, 0o755), os.WriteFile(path, []byte(stoppable), 0o644))
	} else {
		err = os.Remove(path)
		if entries, _ := os.ReadDir(s.dir); len(entries) == 0 {
			_ = os.Remove(s.dir)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("change the unit: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), reloadPatience)
	defer cancel()
	return s.reload(ctx)
}

func daemonReload(ctx context.Context) error {
	out, err := launch.CombinedOutput(exec.CommandContext(ctx, "systemctl", "daemon-reload"))
	if err != nil {
		return fmt.Errorf("have systemd read its units again: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
