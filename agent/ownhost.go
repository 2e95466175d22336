package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"bailey/agent/health"
	"bailey/agent/inforce"
	"bailey/agent/product"
	"bailey/agent/stall"
	"bailey/agent/trial"
	controlv1 "bailey/api/control/v1"
	"bailey/update/client"
	"bailey/update/release"

	"google.golang.org/protobuf/encoding/protojson"
)

// ownHost runs releases of the agent itself for the update client. Each step may be done again, by the agent before or the one after.
type ownHost struct {
	a   *Agent
	own *own
}

var _ client.Host = (*ownHost)(nil)

// Installed returns which release this process is.
func (h *ownHost) Installed(string) (client.Installed, error) {
	name, err := h.own.self(context.Background())
	if err != nil {
		return client.Installed{}, err
	}
	r, err := inforce.Read(h.own.state)
	return client.Installed{Name: name, Version: inforce.Version(name), Folder: filepath.Join(inforce.Releases(h.own.state), name), Why: r.Why}, err
}

// Plan says what the folder is: a program that says that it is a bailey, asked as a user without any right.
func (h *ownHost) Plan(ctx context.Context, _, folder string) (client.Plan, error) {
	if h.a.parent == nil {
		return client.Plan{}, errAlone
	}
	f, err := openProgram(folder)
	if err != nil {
		return client.Plan{}, err
	}
	defer func() { _ = f.Close() }()
	version, err := versionOf(ctx, f, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}})
	if err != nil {
		return client.Plan{}, fmt.Errorf("run its program: %w", err)
	}
	if err := h.notOlder(ctx, version); err != nil {
		return client.Plan{}, err
	}
	digest, err := inforce.Digest(f)
	version = strings.TrimPrefix(version, "v")
	return client.Plan{Product: release.Agent, Version: version, Name: inforce.Name(version, digest)}, err
}

// nobody is the user without any right.
const nobody = 65534

// openProgram opens the program in a folder.
func openProgram(folder string) (*os.File, error) {
	path := filepath.Join(folder, inforce.Program)
	st, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("find its program: %w", err)
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o111 == 0 {
		return nil, fmt.Errorf("%s is no program: %s", inforce.Program, st.Mode())
	}
	return os.Open(path)
}

// notOlder refuses a version that the next start of the service would not begin with: the keeper is newer.
func (h *ownHost) notOlder(ctx context.Context, version string) error {
	keeper, err := os.Open(fmt.Sprintf("/proc/%d/exe", h.a.parent.PID()))
	if err != nil {
		return fmt.Errorf("open the keeper's program: %w", err)
	}
	defer func() { _ = keeper.Close() }()
	installed, err := versionOf(ctx, keeper, nil)
	if err != nil {
		return fmt.Errorf("ask the keeper's program for its version: %w", err)
	}
	if inforce.Newer(installed, version) {
		return fmt.Errorf("it is older than the package, which is %s", installed)
	}
	return nil
}

// Rehearse starts the release beside this agent, where it can do nothing to the machine.
func (h *ownHost) Rehearse(ctx context.Context, _, folder, name string) (client.Rehearsal, error) {
	self, err := h.own.self(ctx)
	if err != nil {
		return client.Rehearsal{}, err
	}
	tries, err := h.begin(name)
	if err != nil {
		return client.Rehearsal{}, err
	}
	if tries > triesAllowed {
		why := fmt.Sprintf("the machine, or the agent, ended %d times while it was rehearsed", tries-1)
		return client.Rehearsal{Reasons: []string{why}}, h.rehearsed()
	}
	c := trial.Config{Dir: filepath.Join(h.a.cfg.Agent.Run, "trial"), Program: filepath.Join(folder, inforce.Program), Version: inforce.Version(name), Args: h.a.args}
	for _, e := range h.a.health.List() {
		if e.Status == health.Failed {
			c.Failed = append(c.Failed, e.Component)
		}
	}
	began := time.Now()
	said, err := trial.Run(ctx, c)
	if derr := h.rehearsed(); derr != nil || ctx.Err() != nil {
		return client.Rehearsal{}, cmp.Or(derr, ctx.Err())
	}
	m := &controlv1.Rehearsal{
		Product: release.Agent, Release: name, Installed: self, Passed: err == nil, Began: began.UnixNano(), Took: uint64(time.Since(began)), Log: valid(said),
	}
	if err != nil {
		m.Reasons = []string{valid(err.Error())}
	}
	h.a.log.Info("release was rehearsed", "product", m.GetProduct(), "release", name, "passed", m.GetPassed(), "reasons", m.GetReasons(), "took", time.Since(began))
	report, err := protojson.Marshal(m)
	return client.Rehearsal{Passed: m.GetPassed(), Reasons: m.GetReasons(), Report: report}, err
}

// triesAllowed is how often a rehearsal is begun that the machine did not live to the end of: once may be somebody at the switch.
const triesAllowed = 2

// begin notes that a release is being rehearsed, and returns how often that began without coming to an end, this time included.
func (h *ownHost) begin(name string) (tries int, err error) {
	err = h.own.edit(func(r *inforce.Record) error {
		if r.Gone == name { // it gets another chance
			r.Gone, r.Why = "", ""
		}
		if r.Trying != name {
			r.Trying, r.Tries = name, 0
		}
		r.Tries++
		tries = r.Tries
		return nil
	})
	return tries, err
}

// rehearsed notes that a rehearsal came to its end.
func (h *ownHost) rehearsed() error {
	return h.own.edit(func(r *inforce.Record) error { r.Trying, r.Tries = "", 0; return nil })
}

// Shadow says that there is none.
func (h *ownHost) Shadow(context.Context, string, string, string) (func() client.Beside, error) {
	return nil, fmt.Errorf("%w: two agents would ask everybody twice", client.ErrAlone)
}

// Install puts the release in force, by the keeper. This agent leaves then, and the next one finds it done.
func (h *ownHost) Install(ctx context.Context, _, folder, name string) error {
	self, err := h.own.self(ctx)
	if err != nil || self == name {
		return err
	}
	r, err := inforce.Read(h.own.state)
	if err != nil || r.Gone == name {
		return err // it was in force, and this machine went back by itself: that is found when it is watched
	}
	if err := h.keep(folder, name, self); err != nil {
		return err
	}
	before := h.before()
	return h.leave(ctx, name, func(r inforce.Record) (inforce.Record, error) {
		return inforce.Record{Name: name, Previous: self, Earlier: r.Previous, Before: before, Gone: r.Gone, Why: r.Why}, nil
	})
}

// keep puts the next program, and this one to go back to, where root alone can change them.
func (h *ownHost) keep(folder, name, self string) error {
	next, err := openProgram(folder)
	if err != nil {
		return err
	}
	defer func() { _ = next.Close() }()
	present, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("open the agent's own program: %w", err)
	}
	defer func() { _ = present.Close() }()
	return errors.Join(inforce.Keep(h.own.state, self, present), inforce.Keep(h.own.state, name, next))
}

// leave has another release take over, and returns when this agent ends, or goes on.
func (h *ownHost) leave(ctx context.Context, name string, next func(inforce.Record) (inforce.Record, error)) error {
	h.a.log.Info("another release of the agent takes over", "release", name)
	if err := h.own.upgrade(ctx, inforce.Path(h.own.state, name), next); err != nil {
		return err
	}
	<-ctx.Done() // it was told to leave
	return ctx.Err()
}

// before is how the machine is now.
func (h *ownHost) before() inforce.Before {
	board := h.a.parent.Board()
	b := inforce.Before{Keeper: board.Started.Load(), Restarts: board.Restarts.Load(), Bypasses: board.Bypasses.Load(), Health: map[string]string{}}
	for _, e := range h.a.health.List() {
		b.Health[e.Component] = e.Status.String()
	}
	for _, v := range h.a.products.List() {
		if v.Status.State == product.Running {
			b.Running = append(b.Running, v.Name)
		}
	}
	return b
}

// Back puts the release before in force again. The record is first: whatever happens then, that one is started next.
func (h *ownHost) Back(ctx context.Context, _, name string) error {
	self, err := h.own.self(ctx)
	if err != nil || self != name {
		return err
	}
	r, err := inforce.Read(h.own.state)
	if err != nil {
		return err
	}
	next := r
	if r.Name == self {
		next = r.GoBack("it was gone back from")
	}
	if next.Name == "" {
		return errors.New("there is no agent before this one on this machine: install the package that is wanted")
	}
	if err := h.own.edit(func(r *inforce.Record) error { *r = next; return nil }); err != nil {
		return err
	}
	return h.leave(ctx, next.Name, func(r inforce.Record) (inforce.Record, error) { return r, nil })
}

// Settle ends the trial of the release in force, and removes the programs that nothing goes back to any more.
func (h *ownHost) Settle(ctx context.Context, _, name string) error {
	self, err := h.own.self(ctx)
	if err != nil {
		return err
	}
	var r inforce.Record
	err = h.own.edit(func(now *inforce.Record) error {
		if now.Name == self && self == name {
			now.Earlier, now.Proven, now.Ended, now.Before = "", true, false, inforce.Before{}
		}
		r = *now
		return nil
	})
	return errors.Join(err, inforce.Prune(h.own.state, self, r.Name, r.Previous, r.Earlier))
}

// Watch returns what says which harm the release does: it is this very process.
func (h *ownHost) Watch(string, string) (func() string, error) {
	r, err := inforce.Read(h.own.state)
	if err != nil {
		return nil, err
	}
	w := &ownWatch{a: h.a, before: r.Before, since: map[string]time.Time{}}
	if b := h.a.parent; b != nil && w.before.Keeper != b.Board().Started.Load() { // another keeper counts from the beginning
		w.before.Restarts, w.before.Bypasses = 0, 0
	}
	machine := stall.New()
	return func() string { return cmp.Or(w.kept(), w.settled(time.Now()), machine.Harm()) }, nil
}

// ownWatch compares the agent with how it was before.
type ownWatch struct {
	a      *Agent
	before inforce.Before
	since  map[string]time.Time // when something was found worse
}

// kept is what the keeper had to do in the agent's place.
func (w *ownWatch) kept() string {
	if w.a.parent == nil {
		return ""
	}
	b := w.a.parent.Board()
	if n := b.Restarts.Load(); n > w.before.Restarts {
		return fmt.Sprintf("the agent ended, and was started again %d times", n-w.before.Restarts)
	}
	if n := b.Bypasses.Load(); n > w.before.Bypasses+bypassesAllowed {
		return fmt.Sprintf("the keeper had to answer in the agent's place %d times", n-w.before.Bypasses)
	}
	return ""
}

// bypassesAllowed is how many times the keeper may answer in a watched agent's place: a machine without processor time for it has some at once, and an agent that
// stands still again and again more.
const bypassesAllowed = 20

// settling is how long a part may take to be as it was before.
const settling = 10 * time.Second

// settled says what is worse than before, and stays so.
func (w *ownWatch) settled(now time.Time) string {
	worse := map[string]string{}
	for _, e := range w.a.health.List() {
		if worsened(w.before.Health[e.Component], e) {
			worse[e.Component] = fmt.Sprintf("%s is %s: %s", e.Component, e.Status, e.Summary)
		}
	}
	for _, name := range w.before.Running {
		v, err := w.a.products.Show(name)
		if err == nil && v.Enabled && v.Status.State != product.Running {
			worse["product."+name] = fmt.Sprintf("the product %s, which ran before, is %s: %s", name, v.Status.State, v.Status.Reason)
		}
	}
	for what := range w.since {
		if worse[what] == "" {
			delete(w.since, what)
		}
	}
	for what, how := range worse {
		if _, known := w.since[what]; !known {
			w.since[what] = now
		}
		if now.Sub(w.since[what]) >= settling {
			return how
		}
	}
	return ""
}

// worsened reports whether a part is worse than it was. What was not there before is new, and may be without what it would need. Products, updates and what is the
// machine's own doing are not the agent's parts.
func worsened(was string, e health.Entry) bool {
	part, _, _ := strings.Cut(e.Component, ".")
	switch part {
	case "product", "update", "clock", "state", "brake":
		return false
	}
	return e.Status == health.Failed && was != health.Failed.String() || e.Status == health.Degraded && was == health.OK.String()
}
