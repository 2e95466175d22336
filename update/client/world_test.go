package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/update/bundle"
	"bailey/update/release"
	"bailey/update/trust"
)

var (
	code    = release.Stream{Vendor: "acme", Product: "edr", Kind: release.Code}
	content = release.Stream{Vendor: "acme", Product: "edr", Kind: release.Content}
)

// world is a repository, a machine and a clock.
type world struct {
	t    *testing.T
	dir  string
	now  time.Time
	cfg  Config
	c    *Client
	repo repository
	host machine
	told []string
}

func newWorld(t *testing.T, streams ...release.Stream) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	w.repo = repository{w: w, files: map[string][]byte{}}
	w.host = machine{w: w, folders: filepath.Join(w.dir, "host")}
	w.cfg = Config{
		Dir: filepath.Join(w.dir, "update"), Repository: &w.repo, Host: &w.host, Streams: streams, OS: "linux/amd64", Settings: Settings{Watch: time.Minute},
		Platform: version("1.4"), Now: func() time.Time { return w.now },
		OnMove: func(m Move) { w.told = append(w.told, fmt.Sprintf("%s %s", m.Version, m.To)) },
	}
	w.boot()
	return w
}

// boot starts the client anew, as after a power cut.
func (w *world) boot() {
	w.t.Helper()
	c, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.c = c
}

func version(text string) release.Version {
	v, err := release.ParseVersion(text)
	if err != nil {
		panic(err)
	}
	return v
}

// step looks, and does one step of each stream.
func (w *world) step() {
	w.c.Refresh(w.t.Context())
	for _, s := range w.cfg.Streams {
		w.c.Step(w.t.Context(), s)
	}
}

// until steps until the newest update of a stream is in a state.
func (w *world) until(s release.Stream, state State) {
	w.t.Helper()
	for range 100 {
		if u := w.update(s); u != nil && u.State == state {
			return
		}
		w.step()
	}
	w.t.Fatalf("it never comes to %s: %+v", state, w.update(s))
}

// settle steps until the newest update of a stream has ended, or waits for the operator.
func (w *world) settle(s release.Stream) *Update {
	w.t.Helper()
	for range 200 {
		w.step()
		if u := w.update(s); u != nil && (u.State.Ended() || u.State == Approve) {
			return u
		}
		w.now = w.now.Add(5 * time.Second)
	}
	w.t.Fatalf("it never ends: %+v, waiting %q, told %q", w.update(s), w.status(s).Waiting, w.told)
	return nil
}

func (w *world) status(s release.Stream) Status {
	for _, st := range w.c.Status() {
		if st.Stream == s {
			return st
		}
	}
	w.t.Fatalf("no stream %s", s)
	return Status{}
}

func (w *world) update(s release.Stream) *Update { return w.status(s).Record.Current }

// repository is what is offered, without the signatures.
type repository struct {
	w      *world
	down   error
	silent error // of every download
	offers map[string][]trust.Offer
	policy release.Policy
	files  map[string][]byte // by digest
}

func (r *repository) Look(context.Context) (View, error) {
	if r.down != nil {
		return nil, r.down
	}
	return r, nil
}

func (r *repository) Plan(_ context.Context, streams ...release.Stream) (trust.Plan, error) {
	p := trust.Plan{At: r.w.now, Expires: r.w.now.Add(24 * time.Hour), Policy: r.policy}
	for _, s := range streams {
		sp := trust.StreamPlan{Stream: s.String()}
		for _, o := range r.offers[s.String()] {
			if _, bad := r.policy.Disables(s, o.Release.Version); !bad {
				sp.Offers = append(sp.Offers, o)
			}
		}
		p.Streams = append(p.Streams, sp)
	}
	return p, nil
}

func (r *repository) Download(_ context.Context, t trust.Target, dir string) (string, error) {
	if r.silent != nil {
		return "", r.silent
	}
	data, ok := r.files[t.SHA256]
	if !ok {
		return "", errors.New("the mirror does not have it")
	}
	path := filepath.Join(dir, t.SHA256)
	return path, os.WriteFile(path, data, 0o600)
}

func (r *repository) Close() {}

func (r *repository) Hurry() {}

// offer publishes a release with files; change may change what it says of itself.
func (w *world) offer(s release.Stream, v string, files map[string]string, change func(*release.Description)) {
	w.t.Helper()
	d := release.Description{
		Schema: 1, Vendor: s.Vendor, Product: s.Product, Kind: s.Kind, Version: version(v), Platforms: []string{"linux/amd64"}, Urgency: release.Routine,
	}
	if change != nil {
		change(&d)
	}
	dir := w.t.TempDir()
	for name, text := range files {
		write(w.t, filepath.Join(dir, name), text)
	}
	var b bytes.Buffer
	if _, err := bundle.Pack(&b, dir, d, bundle.Limits{}); err != nil {
		w.t.Fatal(err)
	}
	t := w.add(s.Path(d.Version, ""), b.Bytes())
	if w.repo.offers == nil {
		w.repo.offers = map[string][]trust.Offer{}
	}
	w.repo.offers[s.String()] = append([]trust.Offer{{Target: t, Release: d}}, w.repo.offers[s.String()]...)
}

func (w *world) add(path string, data []byte) trust.Target {
	sum := sha256.Sum256(data)
	t := trust.Target{Path: path, Length: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
	w.repo.files[t.SHA256] = data
	return t
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// machine is a Host whose products are folders: the name of a release is its version with a digest of its files.
type machine struct {
	beside   string // the release that runs beside the one in force
	warm     string // and the one before it
	alone    bool   // nothing can run beside
	slow     bool   // what runs beside never says what it wants
	doubt    string // what speaks against what runs beside
	settled  int
	w        *world
	folders  string
	names    []string // that were in force, the present one last
	asks     []string
	harm     string
	off      bool // it runs no products
	stopped  bool // by Back, with nothing to go back to
	busy     int  // so many rehearsals find it busy
	installs int
	cut      string // the power is cut after this has been done
}

// errCut is what a step returns that was cut: nobody takes note of it.
var errCut = errors.New("the power was cut")

func (m *machine) done(what string) error {
	if m.cut == what {
		m.cut = ""
		return errCut
	}
	return nil
}

func (m *machine) Installed(string) (Installed, error) {
	if len(m.names) == 0 {
		return Installed{}, ErrNotInstalled
	}
	name := m.names[len(m.names)-1]
	v, _, _ := strings.Cut(name, "-")
	return Installed{Name: name, Version: v, Folder: filepath.Join(m.folders, name)}, nil
}

func (m *machine) Plan(_ context.Context, _, folder string) (Plan, error) {
	text, err := os.ReadFile(filepath.Join(folder, "version"))
	if err != nil {
		return Plan{}, errors.New("there is no file version in it")
	}
	h := sha256.New()
	err = filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(h, "%s %q\n", strings.TrimPrefix(path, folder), b)
		return err
	})
	return Plan{Product: "edr", Version: string(text), Name: fmt.Sprintf("%s-%x", text, h.Sum(nil)[:4]), Asks: m.asks}, err
}

func (m *machine) Rehearse(_ context.Context, _, folder, _ string) (Rehearsal, error) {
	if m.busy > 0 {
		m.busy--
		return Rehearsal{}, ErrBusy
	}
	if text, err := os.ReadFile(filepath.Join(folder, ContentDir, "rules")); err == nil && string(text) == "bad" {
		return Rehearsal{Reasons: []string{"it crashed"}, Report: []byte(`{"reasons":["it crashed"]}`)}, nil
	}
	return Rehearsal{Passed: true}, m.done("rehearse")
}

func (m *machine) Shadow(_ context.Context, _, _, name string) (func() Beside, error) {
	if m.alone {
		return nil, fmt.Errorf("%w: its state is exclusive", ErrAlone)
	}
	m.beside = name
	return func() Beside {
		return Beside{Ready: !m.slow, Harm: m.doubt, Report: func() json.RawMessage { return []byte(`{"compared":"5"}`) }}
	}, m.done("shadow")
}

func (m *machine) Settle(_ context.Context, _, name string) error {
	if m.beside == name || len(m.names) > 0 && m.names[len(m.names)-1] == name {
		m.beside, m.warm = "", ""
		m.settled++
	}
	return nil
}

func (m *machine) Install(_ context.Context, _, folder, name string) error {
	if len(m.names) > 0 && m.names[len(m.names)-1] == name {
		return nil
	}
	m.installs++
	if err := errors.Join(os.RemoveAll(filepath.Join(m.folders, name)), os.MkdirAll(filepath.Join(m.folders, name), 0o755), copyTree(folder, filepath.Join(m.folders, name), "")); err != nil {
		return err
	}
	if m.beside == name {
		m.beside, m.warm = "", m.names[len(m.names)-1]
	}
	m.names = append(m.names, name)
	m.asks = nil
	return m.done("install")
}

func (m *machine) Back(_ context.Context, _, name string) error {
	if n := len(m.names); n > 1 && m.names[n-1] == name {
		m.names = m.names[:n-1]
		m.beside, m.warm = "", ""
	} else if n == 1 && m.names[0] == name {
		m.stopped = true
	}
	return m.done("back")
}

func (m *machine) Watch(_, _ string) (func() string, error) {
	if m.off {
		return nil, ErrOff
	}
	return func() string { return m.harm }, nil
}

// preinstall is what the operator installed by hand.
func (w *world) preinstall(v, rules string) {
	w.t.Helper()
	folder := filepath.Join(w.dir, "by-hand")
	write(w.t, filepath.Join(folder, "version"), v)
	write(w.t, filepath.Join(folder, ContentDir, "rules"), rules)
	p, err := w.host.Plan(w.t.Context(), "edr", folder)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.host.Install(w.t.Context(), "edr", folder, p.Name); err != nil {
		w.t.Fatal(err)
	}
	w.host.installs = 0
}

// inForce returns the version and the rules of what is installed.
func (w *world) inForce() string {
	w.t.Helper()
	in, err := w.host.Installed("edr")
	if err != nil {
		return err.Error()
	}
	v, err := os.ReadFile(filepath.Join(in.Folder, "version"))
	rules, rerr := os.ReadFile(filepath.Join(in.Folder, ContentDir, "rules"))
	if err != nil || rerr != nil {
		w.t.Fatal(err, rerr)
	}
	return string(v) + " with " + string(rules)
}
