package product

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/product/grant"
	"bailey/agent/product/manifest"
	"bailey/internal/durable"
)

// Request is what an operator approves by installing a product.
type Request struct {
	Name        string
	Version     string
	Release     string // VERSION-HASH: the same content has the same hash
	Description string
	Installed   string // the release that is there now; empty if none
	Wants       []string
	New         []string // of them, what is not granted yet; what the operator revoked earlier is not asked again
}

// Text is what the operator reads.
func (r Request) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", r.Name, r.Version)
	if r.Description != "" {
		fmt.Fprintf(&b, " (%s)", r.Description)
	}
	switch {
	case len(r.New) == 0:
		b.WriteString(" wants nothing new.\n")
		return b.String()
	case r.Installed != "":
		b.WriteString(" wants, beyond what it has, to:\n")
	default:
		b.WriteString(" wants to:\n")
	}
	for _, line := range grant.Describe(r.New) {
		b.WriteString("  - " + line + "\n")
	}
	return b.String()
}

const stagingPrefix = ".staging-"

func isStaging(name string) bool { return strings.HasPrefix(name, stagingPrefix) }

// staged is a copied, checked release that is not installed yet.
type staged struct {
	dir      string
	release  string
	manifest *manifest.Manifest
}

// Plan says what installing the folder dir would ask for. It changes nothing.
func (m *Manager) Plan(_ context.Context, dir string) (Request, error) {
	m.install.Lock()
	defer m.install.Unlock()
	s, err := m.stage(dir)
	if err != nil {
		return Request{}, err
	}
	_, _, req := m.merge(s)
	return req, os.RemoveAll(s.dir)
}

// Install copies the product folder dir, asks approve for what is new in its grants, enables the product and starts it. A
// folder or an answer that is not good leaves nothing behind. approve is not called when nothing is new.
func (m *Manager) Install(ctx context.Context, dir string, approve func(Request) error) (View, error) {
	u, err := m.installRelease(dir, approve)
	if err != nil {
		return View{}, err
	}
	err = u.again(ctx)
	return u.view(), err
}

func (m *Manager) installRelease(dir string, approve func(Request) error) (*unit, error) {
	m.install.Lock()
	defer m.install.Unlock()
	s, err := m.stage(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(s.dir) }() // moved away by then, or unwanted
	u, record, req := m.merge(s)
	if len(req.New) > 0 || req.Installed == "" {
		if approve == nil {
			return nil, fmt.Errorf("install %s: its grants are not approved", req.Name)
		}
		if err := approve(req); err != nil {
			return nil, fmt.Errorf("install %s: %w", req.Name, err)
		}
	}
	if record.UID == 0 {
		if record.UID, err = m.freeUID(); err != nil {
			return nil, fmt.Errorf("install %s: %w", req.Name, err)
		}
	}
	m.dismiss(u.name)
	if err := m.putInPlace(s, u, record); err != nil {
		return nil, fmt.Errorf("install %s: %w", req.Name, err)
	}
	m.mu.Lock()
	m.units[u.name] = u
	m.watch(u)
	held := m.held
	m.mu.Unlock()
	if held != "" {
		u.hold(held)
		return u, nil
	}
	u.mu.Lock()
	failed := u.status.State == Failed && u.broken == nil
	u.mu.Unlock()
	if failed {
		u.set(Stopped, "")
	}
	return u, nil
}

// putInPlace makes a staged release the unit's.
func (m *Manager) putInPlace(s *staged, u *unit, r Record) error {
	m.tidy.Lock()
	defer m.tidy.Unlock()
	if err := m.commit(s, r); err != nil {
		return err
	}
	u.prune(r)
	u.load()
	return nil
}

// stage copies dir to where it can be checked without being changed meanwhile.
func (m *Manager) stage(dir string) (*staged, error) {
	tmp, err := os.MkdirTemp(m.dir, stagingPrefix)
	if err != nil {
		return nil, fmt.Errorf("install %s: %w", dir, err)
	}
	s, err := stageInto(tmp, dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("install %s: %w", dir, err), os.RemoveAll(tmp))
	}
	return s, nil
}

func stageInto(tmp, dir string) (*staged, error) {
	hash, err := copyRelease(dir, tmp)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}
	if st, err := os.Lstat(filepath.Join(tmp, manifest.FileName)); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("there is no file %s in it: a product folder has one", manifest.FileName)
	}
	mf, err := manifest.Load(tmp)
	if err != nil {
		return nil, err
	}
	if exe := mf.Run.Command[0]; !filepath.IsAbs(exe) {
		st, err := os.Stat(filepath.Join(tmp, exe))
		if err != nil || !st.Mode().IsRegular() || st.Mode()&0o100 == 0 {
			return nil, fmt.Errorf("run.command: %s is no executable file in the folder", exe)
		}
	}
	return &staged{dir: tmp, release: mf.Version + "-" + hash, manifest: mf}, nil
}

// merge works out the record that installing s gives: the grants that are there, without those the old release asked for
// and the new one does not, with those that only the new one asks for. m.install is held.
func (m *Manager) merge(s *staged) (*unit, Record, Request) {
	name, wanted := s.manifest.Name, grant.Wanted(s.manifest)
	m.mu.Lock()
	u, known := m.units[name]
	m.mu.Unlock()
	if !known {
		u = m.newUnit(name)
	}
	u.mu.Lock()
	old, oldManifest := u.record, u.manifest
	broken, state := u.broken != nil, u.status.State
	u.mu.Unlock()

	r := Record{Name: name, Release: s.release, Enabled: true, Grants: wanted, Installed: time.Now().UTC(), UID: old.UID, State: old.State}
	req := Request{Name: name, Version: s.manifest.Version, Release: s.release, Description: s.manifest.Description, Wants: wanted.Items()}
	if broken {
		r.UID = ownerOf(filepath.Join(u.dir, stateDir)) // nobody knows of which it was: the state that is there stays the product's
	}
	if !known || broken || old.Removed || oldManifest == nil {
		req.New = req.Wants
		return u, r, req
	}
	asked := grant.Wanted(oldManifest)
	req.Installed = old.Release
	req.New = grant.Missing(wanted, union(old.Grants, asked))
	r.Grants = old.Grants
	for _, it := range grant.Missing(asked, wanted) {
		_ = r.Grants.Remove(it) // a limit, or not granted any more: stays as it is
	}
	for _, it := range req.New {
		_ = r.Grants.Add(it) // from a checked manifest: it is good
	}
	r.Enabled, r.Previous, r.PreviousGrants = old.Enabled, old.Previous, old.PreviousGrants
	if old.Release != s.release && state != Failed { // a release that crashed its way out is none to go back to
		r.Previous, r.PreviousGrants = old.Release, &old.Grants
	}
	if r.Previous == s.release {
		r.Previous, r.PreviousGrants = "", nil
	}
	r.Settings = make(map[string]string)
	for k, v := range old.Settings {
		if _, ok := s.manifest.Settings[k]; ok {
			r.Settings[k] = v
		}
	}
	return u, r, req
}

// union is everything that a or b grants, with the higher limits.
func union(a, b grant.Grant) grant.Grant {
	for _, it := range grant.Missing(b, a) {
		_ = a.Add(it) // from a grant: it is good
	}
	return a
}

// commit makes a staged release the product's current one. The last step is the record.
func (m *Manager) commit(s *staged, r Record) error {
	dir := filepath.Join(m.dir, r.Name)
	made := false
	if err := os.Mkdir(dir, 0o700); err == nil {
		made = true
	} else if !errors.Is(err, os.ErrExist) {
		return err
	}
	err := m.place(s, dir)
	if err == nil {
		err = writeRecord(dir, r)
	}
	if err != nil && made {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func (m *Manager) place(s *staged, dir string) error {
	releases := filepath.Join(dir, releasesDir)
	if err := os.Mkdir(releases, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	target := filepath.Join(releases, s.release)
	// The same content under the same name: exchanging it would pull it from under a running product for nothing.
	if _, err := os.Lstat(target); err == nil {
		return nil
	}
	if err := os.Rename(s.dir, target); err != nil {
		return err
	}
	return errors.Join(durable.SyncDir(releases), durable.SyncDir(dir), durable.SyncDir(m.dir))
}

// prune removes releases, and state, that are neither current nor of the release before.
func (u *unit) prune(r Record) {
	releases := filepath.Join(u.dir, releasesDir)
	entries, err := os.ReadDir(releases)
	for _, e := range entries {
		if e.Name() != r.Release && e.Name() != r.Previous {
			err = errors.Join(err, os.RemoveAll(filepath.Join(releases, e.Name())))
		}
	}
	for _, name := range stateDirs {
		dir := filepath.Join(u.dir, name)
		if _, lerr := os.Lstat(dir); lerr != nil || name == r.stateName() || name == r.PreviousState {
			continue // a disk that is read-only refuses to remove what is not there
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		u.m.cfg.Log.Warn("something of a release is left", "product", u.name, "err", err)
	}
}

// pruneAside is prune by the record that there is: what runs beside the product has ended. Without one that can be read everything stays.
func (u *unit) pruneAside() {
	u.mu.Lock()
	r, readable := u.record, u.broken == nil && !u.record.Removed
	u.mu.Unlock()
	if readable {
		u.prune(r)
	}
}

// freeUID finds a user that no product has, removed ones and those with a broken record included. m.install is held.
func (m *Manager) freeUID() (uint32, error) {
	var used []uint32
	m.mu.Lock()
	for _, units := range []map[string]*unit{m.units, m.besides} {
		for _, u := range units {
			r := u.view().Record
			used = append(used, r.UID, r.PreviousUID)
			for _, name := range stateDirs {
				used = append(used, ownerOf(filepath.Join(u.dir, name)))
			}
		}
	}
	m.mu.Unlock()
	for uid := m.cfg.UIDBase; uid < m.servantUID(); uid++ {
		if !slices.Contains(used, uid) {
			return uid, nil
		}
	}
	return 0, fmt.Errorf("%d products are the most that one agent takes", maxProducts-2)
}

// ownerOf is the owner of a state directory, 0 if there is none.
func ownerOf(path string) uint32 {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0
	}
	return st.Uid
}

// ErrFirst says that a product has no release to go back to.
var ErrFirst = errors.New("there is no release before it")

// GoBack makes the release before the current one, if that is from, and starts it; its grants come back with it. Where there is none the
// error is ErrFirst.
func (m *Manager) GoBack(ctx context.Context, name, from string) (View, error) {
	m.install.Lock()
	u, err := m.goBack(name, from)
	m.install.Unlock()
	if err != nil {
		return View{}, fmt.Errorf("go back from %s: %w", from, err)
	}
	err = u.again(ctx)
	return u.view(), err
}

// goBack is GoBack without waiting, and returns what is the product then. m.install is held.
func (m *Manager) goBack(name, from string) (*unit, error) {
	u, err := m.unit(name)
	if err != nil {
		return nil, err
	}
	if u.view().Release == from {
		if done, err := m.returnToWarm(u); done || err != nil {
			u, uerr := m.unit(name)
			return u, errors.Join(err, uerr)
		}
		m.dismiss(name)
	}
	return u, u.back(from)
}

// back is goBack where from is what is there; otherwise nothing is to be done.
func (u *unit) back(from string) error {
	u.mu.Lock()
	present, previous, failed := u.record.Release, u.record.Previous, u.status.State == Failed
	u.mu.Unlock()
	switch {
	case present != from:
		return nil
	case previous == "":
		return ErrFirst
	}
	if err := u.goBack(); err != nil {
		return err
	}
	if failed {
		return u.setEnabled(true)
	}
	return nil
}

// Remove stops a product and forgets it. Its state is kept for a later installation unless purge.
func (m *Manager) Remove(ctx context.Context, name string, purge bool) error {
	m.install.Lock()
	defer m.install.Unlock()
	u, err := m.unit(name)
	if err != nil {
		return err
	}
	m.dismiss(name)
	if err := errors.Join(u.halt(ctx), m.awaitAlone(ctx, name)); err != nil {
		return fmt.Errorf("remove product %s: %w", name, err)
	}
	if err := u.erase(purge); err != nil {
		return fmt.Errorf("remove product %s: %w", name, err)
	}
	m.cfg.Health.Remove("product." + name)
	if purge {
		m.mu.Lock()
		delete(m.units, name)
		m.mu.Unlock()
		u.end()
	}
	return nil
}

// erase removes the product's files: the record first, or all of them by one rename, so that a power cut leaves a removed product and not half of one.
func (u *unit) erase(purge bool) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	err := u.log.Close()
	switch {
	case purge:
		aside := filepath.Join(u.m.dir, stagingPrefix+"purged-"+u.name) // what is left of it goes at the next start
		perr := os.RemoveAll(aside)
		if perr == nil {
			perr = os.Rename(u.dir, aside)
		}
		if perr == nil || errors.Is(perr, os.ErrNotExist) {
			perr = errors.Join(durable.SyncDir(u.m.dir), os.RemoveAll(aside))
		}
		return errors.Join(err, perr)
	case u.broken == nil:
		r := Record{Name: u.name, UID: u.record.UID, State: u.record.State, Removed: true, Installed: u.record.Installed}
		err = errors.Join(err, u.save(r))
	default:
		return errors.Join(err, fmt.Errorf("its record is unreadable, so its state cannot be kept for sure; remove it with its state, or install it again: %w", u.broken))
	}
	u.manifest = nil
	for _, name := range []string{releasesDir, logName, logName + ".1"} {
		err = errors.Join(err, os.RemoveAll(filepath.Join(u.dir, name)))
	}
	return err
}
