package product

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"bailey/agent/product/contain"
)

// Keeper is the process that outlives the agent: what it keeps, the next agent can take. It is the parent of what the agent
// leaves behind, and reaps it. No method waits for anything but the keeper itself, and for that not long: supervision waits
// meanwhile. Safe for concurrent use.
type Keeper interface {
	Keep(name string, fd int) error     // the keeper gets its own duplicate under this name, replacing what had it; name ≤ 63 bytes
	Drop(name string) error             // closes what has this name, if anything does
	Take(name string) (fd int, ok bool) // what the previous agent left under this name; ownership passes to the caller, once
	Names() []string                    // what the previous agent left and nobody took yet
}

// The parts of one product that are kept, in this order. The product's life hangs on the write end of a pipe: until that
// is kept, the last of all, it ends with the agent; from then on everything that the next agent needs is there. So wherever
// the agent is killed, a product can be taken over or it ends.
const (
	partSocket = "socket"  // the agent's end of the conversation
	partStatus = "status"  // what pid 1 of its namespace says
	partStdout = "stdout"  // kept so that its writing does not fail meanwhile
	partStderr = "stderr"  //
	partInit   = "init"    // pidfd of pid 1
	partMemory = "memory"  // what the agent knows of it
	partAlive  = "alive"   // last
	keptPrefix = "product" // of the names
)

var keptParts = []string{partSocket, partStatus, partStdout, partStderr, partInit, partMemory, partAlive}

// keptName is at most 49 bytes: a product's name has at most 32, and its place two more.
func keptName(place, part string) string { return keptPrefix + "/" + place + "/" + part }

// parseKept is the inverse of keptName.
func parseKept(name string) (place, part string, ok bool) {
	f := strings.Split(name, "/")
	if len(f) != 3 || f[0] != keptPrefix || f[1] == "" || f[2] == "" {
		return "", "", false
	}
	return f[1], f[2], true
}

// keep makes the running product outlive this agent.
func (r *run) keep() error {
	l, err := r.life()
	if err != nil {
		return err
	}
	if err := r.memory.write(l); err != nil {
		return err
	}
	return r.keepParts()
}

// keepParts gives the running product's parts to the keeper.
func (r *run) keepParts() error {
	p := r.process.Parts()
	parts := map[string]*os.File{
		partSocket: r.socket, partStatus: p.Status, partStdout: r.outputs[0], partStderr: r.outputs[1],
		partInit: p.PidFD, partMemory: r.memory.file, partAlive: p.Alive,
	}
	for _, part := range keptParts {
		if err := r.keepPart(part, parts[part]); err != nil {
			return errors.Join(fmt.Errorf("keep %s: %w", part, err), r.unkeep())
		}
	}
	r.kept = true
	return nil
}

func (r *run) keepPart(part string, f *os.File) error {
	if f == nil {
		return errors.New("there is none")
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) { err = r.u.m.cfg.Keeper.Keep(keptName(r.place, part), int(fd)) })
	return errors.Join(err, cerr)
}

// unkeep makes the product end with this agent again.
func (r *run) unkeep() error {
	r.kept = false
	return r.u.m.dropKept(r.place)
}

// dropKept drops all parts of a running product, first of all what it lives on.
func (m *Manager) dropKept(place string) error {
	var errs []error
	for i := len(keptParts) - 1; i >= 0; i-- {
		if err := m.cfg.Keeper.Drop(keptName(place, keptParts[i])); err != nil {
			errs = append(errs, fmt.Errorf("drop %s of product %s: %w", keptParts[i], place, err))
		}
	}
	return errors.Join(errs...)
}

// heir is a running product that an earlier agent left, and that can be taken over.
type heir struct {
	parts  map[string]*os.File
	memory *memory
	life   life
}

// inherit takes what the previous agent left and returns the control groups of the products whose processes must be spared. What
// cannot be taken over is ended.
func (m *Manager) inherit(has func(group string) bool) (spare []string) {
	if m.cfg.Keeper == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	left := map[string]map[string]*os.File{}
	for _, name := range m.cfg.Keeper.Names() {
		place, part, ok := parseKept(name)
		if !ok {
			continue // somebody else's
		}
		fd, ok := m.cfg.Keeper.Take(name)
		if !ok {
			continue
		}
		unix.CloseOnExec(fd)
		if left[place] == nil {
			left[place] = map[string]*os.File{}
		}
		left[place][part] = os.NewFile(uintptr(fd), name)
	}
	for place, parts := range left {
		h := &heir{parts: parts}
		err := m.bequeath(place, h, has)
		if err == nil {
			spare = append(spare, place)
			continue
		}
		m.cfg.Log.Info("product is not taken over from the agent before", "product", place, "reason", err)
		h.end()
		if err := m.dropKept(place); err != nil {
			m.cfg.Log.Error("the keeper still holds a product that has ended", "product", place, "err", err)
		}
	}
	return spare
}

// bequeath gives h to its unit if everything fits.
func (m *Manager) bequeath(place string, h *heir, has func(group string) bool) error {
	for _, part := range keptParts {
		if h.parts[part] == nil {
			return fmt.Errorf("nothing is left of its %s", part)
		}
	}
	var err error
	if h.memory, err = openMemory(h.parts[partMemory]); err != nil {
		return err
	}
	delete(h.parts, partMemory) // the memory's now
	if h.life, err = h.memory.read(); err != nil {
		return err
	}
	u := m.units[h.life.Product]
	switch {
	case u == nil:
		return ErrUnknown
	case cmp.Or(h.life.Place, h.life.Product) != place: // agents before this one knew no place
		return fmt.Errorf("it is the one of %q", h.life.Place)
	case !has(place):
		return errors.New("its control group is gone")
	}
	return u.fits(h)
}

// fits takes h if it is what this unit would start now.
func (u *unit) fits(h *heir) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.broken != nil {
		return u.broken
	}
	record, err := digest(u.record.started())
	if err != nil {
		return err
	}
	mf, err := digest(u.manifest)
	if err != nil {
		return err
	}
	l := h.life
	switch {
	case u.heir != nil:
		return errors.New("another of its runs was left")
	case !u.wanted:
		return errors.New("it shall not run")
	case l.Record != record:
		return errors.New("its grants or settings changed meanwhile")
	case l.Manifest != mf:
		return errors.New("its manifest changed meanwhile")
	case u.manifest.Run.Transport == "stream":
		return errors.New("its socket is a stream: a frame may have been cut")
	}
	u.heir, u.place = h, cmp.Or(l.Place, l.Product)
	u.m.resuming.Add(1)
	return nil
}

// end ends what cannot be taken over: at once, and its files with it.
func (h *heir) end() {
	if f := h.parts[partInit]; f != nil {
		if conn, err := f.SyscallConn(); err == nil {
			_ = conn.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
		}
	}
	for _, f := range h.parts {
		_ = f.Close()
	}
	if h.memory != nil {
		h.memory.close()
	}
}

// take returns one part, which is the caller's from then on.
func (h *heir) take(part string) *os.File {
	f := h.parts[part]
	delete(h.parts, part)
	return f
}

func (h *heir) process() contain.Parts {
	return contain.Parts{
		Init: h.life.Init, PID: h.life.PID, Notes: h.life.Notes,
		PidFD: h.take(partInit), Alive: h.take(partAlive), Status: h.take(partStatus),
	}
}
