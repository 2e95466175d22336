package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"

	"bailey/agent/health"
	"bailey/agent/inforce"
)

// own is what an agent knows of its own releases: the record, and which of them it is itself. Safe for concurrent use.
type own struct {
	a      *Agent
	state  string
	looked chan struct{} // closed when it is known which release this is

	mu   sync.Mutex // above the record on the disk, too
	name string     // of this release; empty before it was needed: it costs reading the whole program
	bad  error      // why it is not known
}

func newOwn(a *Agent) *own {
	return &own{a: a, state: a.cfg.Agent.State, looked: make(chan struct{})}
}

// ownComponent is the agent's releases in the health registry.
const ownComponent = "release"

// run finds out which release this is. The keeper may have gone back to it.
func (o *own) run(ctx context.Context) error {
	if err := o.look(); err != nil {
		o.a.health.Set(health.Entry{
			Component: ownComponent, Status: health.Degraded, Summary: "the agent does not update itself: " + err.Error(),
			Remedy: "look at " + inforce.Dir(o.state),
		})
	}
	close(o.looked)
	<-ctx.Done()
	return ctx.Err()
}

func (o *own) look() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	r, err := inforce.Read(o.state)
	if err != nil || r.Name == "" {
		return err
	}
	o.nameSelf()
	if o.bad != nil || r.Name == o.name || r.Gone == o.name { // the last is about to be gone back from
		return o.bad
	}
	if inforce.Version(r.Name) != inforce.Version(o.name) {
		o.a.log.Warn("the agent that was in force is gone back from", "release", r.Name, "now", o.name)
		r = r.GoBack("it was not started, or ended again and again, and the keeper went back")
		if r.Name != o.name { // to the keeper's own
			r.Previous = ""
		}
	}
	r.Name = o.name
	return inforce.Write(o.state, &r)
}

// nameSelf finds out which release this is. Caller holds o.mu.
func (o *own) nameSelf() {
	if o.name == "" {
		o.name, o.bad = ownName(o.a.build.Version)
	}
}

// ownName is the name of the release that this process runs.
func ownName(version string) (string, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("open the agent's own program: %w", err)
	}
	defer func() { _ = f.Close() }()
	digest, err := inforce.Digest(f)
	if err != nil {
		return "", err
	}
	return inforce.Name(strings.TrimPrefix(version, "v"), digest), nil
}

// self is the name of this release.
func (o *own) self(ctx context.Context) (string, error) {
	select {
	case <-o.looked:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.nameSelf()
	return o.name, o.bad
}

// edit changes the record. With an error nothing is changed.
func (o *own) edit(f func(*inforce.Record) error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	was, err := inforce.Read(o.state)
	if err != nil {
		return err
	}
	r := was
	if err := f(&r); err != nil || reflect.DeepEqual(r, was) {
		return err
	}
	return inforce.Write(o.state, &r)
}

// errAlone says that an agent without a keeper cannot be replaced.
var errAlone = errors.New("this agent runs alone: nothing could hold its place meanwhile")

// upgrade has the keeper start the program at path, after next is the record, and returns when this agent ends; with an error it goes on, and so
// does the record.
func (o *own) upgrade(ctx context.Context, path string, next func(inforce.Record) (inforce.Record, error)) error {
	if o.a.parent == nil {
		return errAlone
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the new agent: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := o.a.trustProgram(path); err != nil {
		return err
	}
	var was inforce.Record
	err = o.edit(func(r *inforce.Record) (err error) {
		was = *r
		*r, err = next(was)
		return err
	})
	if err != nil {
		return err
	}
	if err := o.a.parent.Upgrade(ctx, f); err != nil && !o.a.leaving.Load() {
		return errors.Join(err, o.edit(func(r *inforce.Record) error { *r = was; return nil }))
	}
	return nil
}

// byHand ends the record: the operator chose another program than any release, until the service is restarted.
func byHand(inforce.Record) (inforce.Record, error) { return inforce.Record{}, nil }

// ended takes note that a release that is not proven ended because it was told to: it may be started again.
func (o *own) ended() {
	select {
	case <-o.looked:
	default:
		return
	}
	if o.a.parent == nil {
		return
	}
	select {
	case <-o.a.parent.Orphaned(): // it was not told to
		return
	default:
	}
	err := o.edit(func(r *inforce.Record) error {
		if r.Name != "" && r.Name == o.name && !r.Proven {
			r.Ended = true
		}
		return nil
	})
	if err != nil {
		o.a.log.Warn("this release will not be started again", "err", err)
	}
}

// ownPrograms are the programs that agent and keeper run.
func (a *Agent) ownPrograms() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the agent's program: %w", err)
	}
	programs := []string{self}
	if a.parent == nil {
		return programs, nil
	}
	keeper, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", a.parent.PID()))
	if err != nil || keeper == self {
		return programs, nil // it has ended, or runs the same
	}
	if _, err := os.Stat(keeper); err != nil {
		return programs, nil // it was replaced
	}
	return append(programs, filepath.Clean(keeper)), nil
}
