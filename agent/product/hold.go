package product

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"bailey/agent/event"
	"bailey/agent/health"
)

// ErrHeld is the class of what cannot be done while no product is started.
var ErrHeld = errors.New("no product is started now")

// Hold has no product started until Release, and says why in their status. Their records stay as they are and can be changed. Called before Run.
func (m *Manager) Hold(why string) {
	m.mu.Lock()
	m.held = why
	units := slices.Collect(maps.Values(m.units))
	m.mu.Unlock()
	for _, u := range units {
		u.hold(why)
	}
}

// Release ends Hold: what is enabled is started.
func (m *Manager) Release() {
	m.mu.Lock()
	m.held = ""
	units := slices.Collect(maps.Values(m.units))
	for _, u := range units {
		m.watch(u)
	}
	m.mu.Unlock()
	for _, u := range units {
		if !u.isWanted() {
			u.hold("")
		}
	}
}

// Held is why no product is started, empty if they are.
func (m *Manager) Held() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

// startable is nil when products are started.
func (m *Manager) startable() error {
	if why := m.Held(); why != "" {
		return fmt.Errorf("%w: %s", ErrHeld, why)
	}
	return nil
}

// hold shows why the product is not started; empty: because it is not to be.
func (u *unit) hold(why string) {
	u.mu.Lock()
	ok := u.broken == nil && !u.record.Removed
	u.mu.Unlock()
	if !ok {
		return
	}
	if why != "" {
		why = "off: " + why
	}
	u.set(Stopped, why)
}

// Offline reads what is installed in a state directory that no agent works on, for whoever repairs it: List and Show say what there is, GoBack
// and Stop change records. Nothing runs, and nothing is cleaned up.
func Offline(state string) (*Manager, error) {
	m := &Manager{
		cfg: Config{State: state, Health: health.NewRegistry(), Log: slog.New(slog.DiscardHandler), Emit: func(*event.Event) {}, Backoff: Backoff{}.withDefaults()},
		dir: filepath.Join(state, "products"), units: make(map[string]*unit), besides: make(map[string]*unit),
	}
	entries, err := os.ReadDir(m.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open product state: %w", err)
	}
	m.add(entries)
	return m, nil
}

// add reads the products among the entries of the products' directory.
func (m *Manager) add(entries []fs.DirEntry) {
	for _, e := range entries {
		if !e.IsDir() || isStaging(e.Name()) {
			continue
		}
		u := m.newUnit(e.Name())
		u.load()
		m.units[e.Name()] = u
	}
}
