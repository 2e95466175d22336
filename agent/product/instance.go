package product

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/health"
	"bailey/agent/product/cgroup"
	"bailey/agent/product/contain"
	"bailey/agent/product/manifest"
)

// run is one running instance with everything that must be given back when it ends.
type run struct {
	u        *unit
	record   Record
	manifest *manifest.Manifest
	restart  int // the unit's count of restart requests when this run began
	readOnly bool
	began    time.Time
	since    time.Time // when it was seen to run
	crashes  *crashes  // the watcher's
	host     Host      // speaks with it
	place    string    // its control group, below the agent's
	trial    bool      // it is nobody's product yet: it never outlives the agent, and gives way to everybody

	group   *cgroup.Group
	process *contain.Process
	sockets *contain.Sockets
	session Session
	pumps   sync.WaitGroup
	outputs []*os.File // read ends of its standard output and error

	// Of a product that may outlive the agent:
	memory *memory
	socket *os.File // the agent's end once more
	kept   bool
}

// runOnce starts the product, or takes it over, and stays with it until nothing of it is left.
func (u *unit) runOnce(ctx context.Context, memory *crashes) ending {
	r, err := u.begin(ctx, memory)
	var end ending
	if err != nil {
		end = ending{reason: err.Error()}
	} else {
		u.mu.Lock()
		u.status.PID, u.present = r.process.PID(), r
		u.mu.Unlock()
		u.setSince(Running, r.fullReason(), r.since)
		end = r.stay(ctx)
		u.mu.Lock()
		u.present = nil
		u.mu.Unlock()
	}
	if end.left {
		r.leave()
		return end
	}
	r.giveBack()
	end.ran = time.Since(r.began)
	return end
}

// begin takes over what an earlier agent left of the product, or starts it.
func (u *unit) begin(ctx context.Context, memory *crashes) (*run, error) {
	r := u.newRun(memory)
	u.mu.Lock()
	h := u.heir
	u.heir = nil
	u.mu.Unlock()
	if h != nil {
		err := r.adopt(ctx, h)
		u.m.resuming.Done()
		if err == nil {
			return r, nil
		}
		u.m.cfg.Log.Warn("product is not taken over from the agent before: it is started again", "product", u.name, "err", err)
		r.giveBack()
		u.mu.Lock()
		u.status.Restarts = h.life.Restarts + 1
		u.mu.Unlock()
		r = u.newRun(memory)
	}
	u.set(Starting, "")
	err := r.start()
	r.since = time.Now()
	return r, err
}

func (u *unit) newRun(memory *crashes) *run {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.current = u.restart
	return &run{
		u: u, record: u.record, manifest: u.manifest, restart: u.restart, began: time.Now(), crashes: memory, host: u.m.cfg.Host, place: u.place,
	}
}

// giveBack is cleanUp with its failure logged.
func (r *run) giveBack() {
	if err := r.cleanUp(); err != nil {
		r.u.m.cfg.Log.Error("something of a product is left", "product", r.u.name, "err", err)
	}
}

func (r *run) fullReason() string {
	if r.readOnly {
		return fmt.Sprintf("its state directory is over %v and read-only until something is removed or more is granted", r.record.Grants.Limits.State)
	}
	return ""
}

func (r *run) start() error {
	state, err := r.u.ensureState(&r.record)
	if err != nil {
		return err
	}
	r.readOnly = r.measureState(state)
	return r.launch(state)
}

// launch starts the contained process on a state directory and connects it.
func (r *run) launch(state string) error {
	l := r.record.Grants.Limits
	var err error
	if r.group, err = r.u.m.tree.Create(r.place, cgroup.Limits{Memory: int64(l.Memory), Pids: l.Pids, CPU: l.CPU}); err != nil {
		return err
	}
	r.u.watchGroup(r.group)
	ours, theirs, err := socketPair(r.manifest.Run.Transport)
	if err != nil {
		return fmt.Errorf("make product socket: %w", err)
	}
	defer func() { _ = theirs.Close() }()
	if err := r.prepareToOutlive(ours); err != nil {
		return errors.Join(err, unix.Close(ours))
	}
	if r.process, err = r.spawn(state, theirs); err != nil {
		return errors.Join(err, unix.Close(ours))
	}
	r.reportNotes()
	session, err := r.host.Connect(r.instance(), ours)
	if err != nil {
		return fmt.Errorf("connect product: %w", err)
	}
	r.session = session
	return nil
}

// socketPair makes the product's socket. The agent's end is a plain descriptor: who takes it over decides how to wait on it.
func socketPair(transport string) (ours int, theirs *os.File, err error) {
	kind := unix.SOCK_SEQPACKET
	if transport == "stream" {
		kind = unix.SOCK_STREAM
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, err
	}
	return fds[0], os.NewFile(uintptr(fds[1]), "product socket"), nil
}

// spawn starts the contained process with its output going to the log.
func (r *run) spawn(state string, socket *os.File) (*contain.Process, error) {
	o := contain.Options{Helper: r.u.m.cfg.Helper, Group: r.group, Socket: socket}
	var ends []*os.File
	for _, s := range []struct {
		name string
		to   **os.File
	}{{"out", &o.Stdout}, {"err", &o.Stderr}} {
		in, out, err := os.Pipe()
		if err != nil {
			closeAll(ends)
			return nil, fmt.Errorf("make product output: %w", err)
		}
		*s.to = out
		ends = append(ends, out)
		r.read(in, s.name)
	}
	spec := r.spec(state)
	r.sockets = contain.WatchSockets(spec)
	p, err := r.u.m.spawner.Start(spec, o)
	closeAll(ends) // the product has its own; ours would keep the pumps waiting
	return p, err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // never written to here
	}
}

// read puts one of the product's outputs into its log until its end. in is open until the run is over.
func (r *run) read(in *os.File, stream string) {
	r.outputs = append(r.outputs, in)
	r.pumps.Go(func() {
		if err := r.u.log.pump(in, stream); err != nil {
			r.u.m.cfg.Log.Warn("product output is lost", "product", r.u.name, "err", err)
		}
	})
}

func (r *run) spec(state string) contain.Spec {
	g, l := r.record.Grants, r.record.Grants.Limits
	return contain.Spec{
		Name: r.record.Name, Root: r.u.m.rootDir(), Release: filepath.Join(r.u.dir, releasesDir, r.record.Release), State: state, StateReadOnly: r.readOnly,
		Read: g.Read, Connect: g.Connect, Command: r.manifest.Run.Command, Env: environment(r.record.Name, l),
		Outlive: r.memory != nil, Idle: r.trial, UID: r.record.UID, TmpBytes: int64(l.Memory) / 2, FileBytes: int64(max(l.State, l.Memory/2)), Pids: l.Pids, Files: l.Files,
	}
}

// environment is all that a product gets; the last two keep Go products within limits that they cannot see.
func environment(name string, l manifest.Limits) []string {
	return []string{
		"PATH=" + contain.ProductDir + ":/usr/local/bin:/usr/bin:/bin",
		"HOME=" + contain.StateDir, "STATE_DIRECTORY=" + contain.StateDir, "TMPDIR=" + contain.TmpDir, "LANG=C.UTF-8",
		"BAILEY_PRODUCT=" + name, fmt.Sprintf("BAILEY_SOCKET=%d", contain.SocketFD),
		fmt.Sprintf("GOMAXPROCS=%d", max(1, int(math.Ceil(l.CPU)))), fmt.Sprintf("GOMEMLIMIT=%d", int64(l.Memory)/10*8),
	}
}

func (r *run) instance() Instance {
	settings := maps.Clone(r.manifest.Settings)
	if settings == nil {
		settings = make(map[string]string)
	}
	maps.Copy(settings, r.record.Settings)
	inst := Instance{
		Name: r.record.Name, Beside: r.u.isBeside(), Release: r.record.Release, Version: r.manifest.Version, Transport: r.manifest.Run.Transport,
		PID: r.process.PID(), Init: r.process.InitPID(), UID: r.record.UID, Grants: r.record.Grants, Settings: settings,
	}
	if r.memory != nil {
		inst.EventsMade, inst.QuestionsMade = r.memory.events(), r.memory.questions()
	}
	return inst
}

// reportNotes turns what this machine cannot do into health entries, and takes back what it can do by now.
func (r *run) reportNotes() {
	missing := map[string]contain.Note{}
	for _, n := range r.process.Notes() {
		missing[n.Component] = n
	}
	for component, summary := range map[string]string{
		"landlock": "products are in a Landlock domain", "landlock_scope": "Landlock keeps signals and abstract sockets inside",
		"hidepid": "products see their own processes only", "cgroup_namespace": "products cannot see their control group's path",
	} {
		e := health.Entry{Component: "containment." + component, Status: health.OK, Summary: summary}
		if n, ok := missing[component]; ok {
			e.Status, e.Summary, e.Remedy = health.Degraded, n.Summary, n.Remedy
		}
		r.u.m.cfg.Health.Set(e)
	}
}

// stay watches the running product until it ended or shall end.
func (r *run) stay(ctx context.Context) ending {
	poll := time.NewTicker(r.u.m.cfg.Poll)
	defer poll.Stop()
	sockets := time.NewTicker(min(r.u.m.cfg.Poll, time.Second))
	defer sockets.Stop()
	resumable := r.keepable()
	for {
		select {
		case <-resumable:
			resumable = nil
			r.secure(r.keep)
		case <-r.process.Done():
			return ending{reason: r.exitReason()}
		case <-r.session.Done():
			return r.hungUp()
		case <-ctx.Done():
			if r.kept && r.u.m.leaving.Load() {
				return ending{left: true}
			}
			r.takeDown()
			return ending{requested: true}
		case <-r.u.wake:
			if r.unwanted() {
				r.takeDown()
				return ending{requested: true}
			}
			resumable = r.keepable()
		case <-sockets.C:
			if err := r.sockets.Refresh(r.process); err != nil {
				r.u.m.cfg.Log.Warn("product cannot reach a socket", "product", r.u.name, "err", err)
			}
		case <-poll.C:
			if r.look() {
				r.takeDown()
				return ending{requested: true}
			}
		}
	}
}

// keepable returns what is closed when the product can be given to the keeper; nil where it is, or shall not be. What runs beside a product ends with
// the agent, also if it was the product before.
func (r *run) keepable() <-chan struct{} {
	switch {
	case r.u.isBeside():
		r.release()
	case r.memory != nil && !r.kept:
		return r.session.Resumable()
	}
	return nil
}

func (r *run) unwanted() bool {
	r.u.mu.Lock()
	defer r.u.mu.Unlock()
	return !r.u.wanted || r.u.restart != r.restart
}

// hungUp is for a conversation that is over: the product is ending, or it broke the protocol.
func (r *run) hungUp() ending {
	const grace = time.Second // a product that died is reaped within it
	if r.endedWithin(grace) {
		return ending{reason: r.exitReason()}
	}
	r.process.Kill()
	<-r.process.Done()
	if err := r.session.Err(); err != nil {
		return ending{reason: fmt.Sprintf("protocol fault: %v", err)}
	}
	return ending{reason: "it closed its socket and went on running"}
}

func (r *run) exitReason() string {
	exit := r.process.Exit()
	if s := r.group.Stats(); s.OOMKills > 0 {
		return fmt.Sprintf("out of memory: the limit is %v", r.record.Grants.Limits.Memory)
	}
	if exit.Signal != 0 {
		return fmt.Sprintf("ended by signal %d (%s)", exit.Signal, unix.SignalName(unix.Signal(exit.Signal)))
	}
	return fmt.Sprintf("exited with status %d", exit.Code)
}

// takeDown asks by frame, then by signal, then kills.
func (r *run) takeDown() {
	timeout := r.u.m.cfg.StopTimeout
	deadline := time.Now().Add(timeout)
	r.u.set(Stopping, "")
	r.release() // killed from here on, this agent takes the product with it
	r.session.Stop(deadline)
	if r.endedWithin(timeout / 3) {
		return
	}
	r.process.Terminate()
	if r.endedWithin(time.Until(deadline)) {
		return
	}
	r.u.m.cfg.Log.Warn("product killed: it did not stop", "product", r.u.name, "deadline", timeout)
	r.process.Kill()
	<-r.process.Done()
}

func (r *run) endedWithin(d time.Duration) bool {
	select {
	case <-r.process.Done():
		return true
	case <-time.After(d):
		return false
	}
}

// cleanUp gives everything back and makes sure that nothing is left.
func (r *run) cleanUp() error {
	r.release()
	var errs []error
	if r.process != nil {
		r.process.Kill()
		<-r.process.Done()
	}
	if r.session != nil {
		r.session.Close()
	}
	r.u.watchGroup(nil)
	if r.group != nil {
		errs = append(errs, r.group.Kill(), r.group.Remove())
	}
	r.closeFiles()
	return errors.Join(errs...)
}

// closeFiles waits for the outputs' end and closes what the run has open.
func (r *run) closeFiles() {
	r.pumps.Wait()
	closeAll(r.outputs)
	if r.socket != nil {
		_ = r.socket.Close() // what it was a copy of is closed
	}
	if r.memory != nil {
		r.memory.close()
	}
}
