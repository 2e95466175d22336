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

	group   *cgroup.Group
	process *contain.Process
	sockets *contain.Sockets
	session Session
	pumps   sync.WaitGroup
}

// runOnce starts the product and stays with it until nothing of it is left.
func (u *unit) runOnce(ctx context.Context) ending {
	u.mu.Lock()
	r := &run{u: u, record: u.record, manifest: u.manifest, restart: u.restart, began: time.Now()}
	u.current = u.restart
	u.mu.Unlock()
	u.set(Starting, "")
	err := r.start()
	var end ending
	if err != nil {
		end = ending{reason: err.Error()}
	} else {
		u.mu.Lock()
		u.status.PID = r.process.PID()
		u.mu.Unlock()
		u.set(Running, r.fullReason())
		end = r.stay(ctx)
	}
	if err := r.cleanUp(); err != nil {
		u.m.cfg.Log.Error("something of a product is left", "product", u.name, "err", err)
	}
	end.ran = time.Since(r.began)
	return end
}

func (r *run) fullReason() string {
	if r.readOnly {
		return fmt.Sprintf("its state directory is over %v and read-only until something is removed or more is granted", r.record.Grants.Limits.State)
	}
	return ""
}

func (r *run) start() error {
	state, err := r.u.ensureState(r.record.UID)
	if err != nil {
		return err
	}
	r.readOnly = r.measureState(state)
	l := r.record.Grants.Limits
	if r.group, err = r.u.m.tree.Create(r.record.Name, cgroup.Limits{Memory: int64(l.Memory), Pids: l.Pids, CPU: l.CPU}); err != nil {
		return err
	}
	ours, theirs, err := socketPair(r.manifest.Run.Transport)
	if err != nil {
		return fmt.Errorf("make product socket: %w", err)
	}
	defer func() { _ = theirs.Close() }()
	if r.process, err = r.spawn(state, theirs); err != nil {
		return errors.Join(err, unix.Close(ours))
	}
	r.reportNotes()
	session, err := r.u.m.cfg.Host.Connect(r.instance(), ours)
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
		r.pumps.Add(1)
		go r.pump(in, s.name)
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

func (r *run) pump(in *os.File, stream string) {
	defer r.pumps.Done()
	if err := errors.Join(r.u.log.pump(in, stream), in.Close()); err != nil {
		r.u.m.cfg.Log.Warn("product output is lost", "product", r.u.name, "err", err)
	}
}

func (r *run) spec(state string) contain.Spec {
	g, l := r.record.Grants, r.record.Grants.Limits
	return contain.Spec{
		Name: r.record.Name, Root: r.u.m.rootDir(), Release: filepath.Join(r.u.dir, releasesDir, r.record.Release), State: state, StateReadOnly: r.readOnly,
		Read: g.Read, Connect: g.Connect, Command: r.manifest.Run.Command, Env: environment(r.record.Name, l),
		UID: r.record.UID, TmpBytes: int64(l.Memory) / 2, FileBytes: int64(max(l.State, l.Memory/2)), Pids: l.Pids, Files: l.Files,
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
	return Instance{
		Name: r.record.Name, Release: r.record.Release, Version: r.manifest.Version, Transport: r.manifest.Run.Transport,
		PID: r.process.PID(), UID: r.record.UID, Grants: r.record.Grants, Settings: settings,
	}
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
	for {
		select {
		case <-r.process.Done():
			return ending{reason: r.exitReason()}
		case <-r.session.Done():
			return r.hungUp()
		case <-ctx.Done():
			r.takeDown()
			return ending{requested: true}
		case <-r.u.wake:
			if r.unwanted() {
				r.takeDown()
				return ending{requested: true}
			}
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

// look samples what the product uses. It reports whether the product must be restarted because its state directory went
// over its limit, or came back under it.
func (r *run) look() (restart bool) {
	full := r.measureState(filepath.Join(r.u.dir, stateDir))
	s := r.group.Stats()
	r.u.mu.Lock()
	defer r.u.mu.Unlock()
	r.u.status.Memory, r.u.status.CPU, r.u.status.OOMKills = s.Memory, s.CPU, s.OOMKills
	return full != r.readOnly
}

// maxStateFiles bounds how many files a state directory may hold.
const maxStateFiles = 65_536

// measureState reports whether the state directory is over its limit.
func (r *run) measureState(dir string) (full bool) {
	bytes, files := usage(dir)
	limit := int64(r.record.Grants.Limits.State)
	full = bytes > limit || files > maxStateFiles
	r.u.mu.Lock()
	r.u.status.StateBytes, r.u.status.StateFull = bytes, full
	r.u.mu.Unlock()
	e := health.Entry{Component: "product." + r.u.name + ".state", Status: health.OK, Summary: "its state directory is within its limit"}
	if full {
		e.Status = health.Degraded
		e.Summary = fmt.Sprintf("its state directory holds %v in %d files, the limit is %v: it is read-only for the product", manifest.Size(bytes), files, manifest.Size(limit))
		e.Remedy = fmt.Sprintf("grant more (`bailey product grant %s state:N`), or remove files in %s", r.u.name, dir)
	}
	r.u.m.cfg.Health.Set(e)
	return full
}

// usage adds up what is allocated below dir; sparse files count what they take. Files that go meanwhile are not counted.
func usage(dir string) (bytes int64, files int) {
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil {
			bytes += st.Blocks * 512
			files++
		}
		if files > maxStateFiles {
			return filepath.SkipAll
		}
		return nil
	})
	return bytes, files
}

// cleanUp gives everything back and makes sure that nothing is left.
func (r *run) cleanUp() error {
	var errs []error
	if r.process != nil {
		r.process.Kill()
		<-r.process.Done()
	}
	if r.session != nil {
		r.session.Close()
	}
	if r.group != nil {
		errs = append(errs, r.group.Kill(), r.group.Remove())
	}
	r.pumps.Wait()
	return errors.Join(errs...)
}
