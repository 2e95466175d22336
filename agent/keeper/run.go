package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bailey/internal/boottime"
)

// Config is what a Keeper needs.
type Config struct {
	Args []string // the agent's arguments, without its name
	// Program is what agents are started from; empty, or when no agent of it gets ready: the keeper's own.
	Program string
	Run     string // the run directory: the keeper writes StateName there
	Deny    bool   // the operator's default: refuse what the agent cannot answer
	Log     *slog.Logger

	KillAfter  time.Duration // how long a silent agent is waited for before it is ended; default 2 s
	CrashLoop  int           // ends of the agent within CrashWindow after which it is not started again; default 5
	Window     time.Duration // default 60 s
	BackoffMax time.Duration // the longest pause before a start; default 5 s
	Signals    <-chan os.Signal

	Manager       Manager       // the service manager; nil: nobody
	BootPatience  time.Duration // how long it waits for the first agent; default 10 s
	StartPatience time.Duration // how long an agent that starts is waited for before it is ended; default 2 min
	EndPatience   time.Duration // how long one that was told to end is; default 10 s
}

// tidyAfter is how long what a message left behind is kept. All of a keeper's memory is locked: what it touches once it would hold for
// good, a little more with every collection that comes later than the one before.
const tidyAfter = time.Second

// Keeper is the parent of the agents. Made by New, run once.
type Keeper struct {
	cfg      Config
	board    *Board
	answerer *answerer
	store    *store

	agent    *child // the one that answers, nil while there is none
	next     *child // the one that stands by during an upgrade
	left     *child // the one that handed over and exits
	program  *program
	previous *program // to go back to when program does not work
	messages chan envelope
	readers  int
	service  *service

	wasReady bool        // an agent was ready once: from then on failures are restarted
	ends     []time.Time // of agents within the window
	restart  <-chan time.Time
	slow     <-chan time.Time // patience with an agent that starts
	upgrade  <-chan time.Time // patience with an upgrade
	tidy     <-chan time.Time // what messages left behind is given back
	linger   <-chan time.Time // patience with agents that were told to end
	state    State
	ending   bool
	code     int
}

type envelope struct {
	from *child
	m    message
	err  error
}

// New makes a keeper with its board and prepares what it must not allocate later.
func New(cfg Config) (*Keeper, error) {
	orDefault(&cfg.KillAfter, 2*time.Second)
	orDefault(&cfg.Window, time.Minute)
	orDefault(&cfg.BackoffMax, 5*time.Second)
	orDefault(&cfg.BootPatience, bootPatience)
	orDefault(&cfg.StartPatience, startPatience)
	orDefault(&cfg.EndPatience, endPatience)
	if cfg.CrashLoop == 0 {
		cfg.CrashLoop = 5
	}
	if err := reserve(); err != nil {
		return nil, err
	}
	board, err := NewBoard()
	if err != nil {
		return nil, err
	}
	board.Started.Store(boottime.Now())
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, errors.Join(fmt.Errorf("read the limit of open files: %w", err), board.Close())
	}
	a, err := newAnswerer(board, cfg.Deny, int(min(limit.Max, 1<<20)), cfg.KillAfter)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the keeper's wake-up: %w", err), board.Close())
	}
	p, err := openProgram("/proc/self/exe")
	if err != nil {
		return nil, errors.Join(err, board.Close())
	}
	k := &Keeper{cfg: cfg, board: board, answerer: a, store: newStore(a), program: p, messages: make(chan envelope), service: newService(nil, 0)}
	k.begins(cfg.Program)
	return k, nil
}

func orDefault(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
}

// reserve occupies the numbers below ReservedFrom, so that the answerer reads into the numbers above.
func reserve() error {
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("reserve descriptor numbers: %w", err)
		}
		if fd >= ReservedFrom {
			return unix.Close(fd)
		}
	}
}

// Run starts agents and answers in their place until the last one ended because it was told to, and returns its exit code.
// When it returns nobody waits for a verdict: what it kept is let go.
func (k *Keeper) Run(ctx context.Context) (code int, err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, fmt.Errorf("become the reaper of what agents leave: %w", err)
	}
	k.harden()
	children := make(chan os.Signal, 1)
	stopNotify := notifyChildren(children)
	defer stopNotify()
	answering := make(chan struct{})
	go func() {
		defer close(answering)
		k.answerer.run()
	}()
	defer func() {
		k.answerer.end()
		<-answering
		k.store.close()
		k.forget()
	}()
	k.service = newService(k.cfg.Manager, k.cfg.BootPatience)
	defer func() { k.service.end() }()
	k.begin()
	for !k.done() {
		select {
		case <-ctx.Done():
			k.signal(unix.SIGTERM)
			ctx = context.WithoutCancel(ctx)
		case s := <-k.cfg.Signals:
			k.signal(s.(syscall.Signal))
		case <-children:
			k.reap()
		case e := <-k.messages:
			k.heard(e)
			if k.tidy == nil {
				k.tidy = time.After(tidyAfter)
			}
		case <-k.answerer.notice:
			k.noticed()
		case <-k.restart:
			k.restart = nil
			k.begin()
		case <-k.slow:
			k.endSlow()
		case <-k.linger:
			k.endLingering()
		case <-k.upgrade:
			k.abortUpgrade("the new agent was not ready, or the old one did not end, in time")
		case <-k.tidy:
			k.tidy = nil
			debug.FreeOSMemory()
		case <-k.service.boot:
			k.service.started()
		case <-k.service.feed:
			k.watchdog()
		}
	}
	return k.code, nil
}

func (k *Keeper) done() bool {
	return k.ending && k.agent == nil && k.next == nil && k.left == nil && k.readers == 0
}

// harden keeps the keeper in memory, small, and away from the kernel's killer, as far as that is allowed.
func (k *Keeper) harden() {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0)) // or the runtime would stop everybody to follow a change of the processors
	debug.SetGCPercent(20)                    // the first collection comes at 0.8 MiB instead of 4, all of which would stay locked in memory
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		k.cfg.Log.Warn("the keeper's memory is not locked", "err", err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		k.cfg.Log.Info("the keeper can be killed for want of memory", "err", err)
	}
}

// begin starts an agent and has it watched.
func (k *Keeper) begin() {
	k.say(Starting, "")
	c, err := k.start(k.program, false)
	if err != nil {
		k.cfg.Log.Error("the agent could not be started", "err", err)
		if c == nil {
			k.over(1, err.Error())
			return
		}
	}
	k.agent = c
	k.slow = time.After(k.cfg.StartPatience)
	k.listen(c)
	k.answerer.watch(c.pidfd)
	k.state.Agent = c.pid
	k.say(Starting, "")
}

// listen passes on what an agent says until it is gone.
func (k *Keeper) listen(c *child) {
	k.readers++
	go func() {
		for {
			m, err := receive(int(c.sock.Fd()))
			k.messages <- envelope{c, m, err}
			if err != nil {
				return
			}
		}
	}()
}

// heard handles one message of an agent.
func (k *Keeper) heard(e envelope) {
	if e.err != nil {
		k.readers--
		if !errors.Is(e.err, io.EOF) {
			k.cfg.Log.Error("an agent cannot be understood any more: it is ended", "pid", e.from.pid, "err", e.err)
			_ = e.from.kill()
		}
		return
	}
	switch e.m.op {
	case opKeep:
		if e.m.fd < 0 {
			return
		}
		if err := k.store.keep(e.m.name, e.m.fd); err != nil {
			k.cfg.Log.Error("a descriptor is not kept", "name", e.m.name, "err", err)
		}
		return
	case opDrop:
		k.store.drop(e.m.name)
	case opReady:
		e.from.ready = true
		k.wasReady = true
		k.service.started()
		if e.from == k.next {
			k.handOver()
		} else {
			k.say(Serving, "")
		}
	case opEnding:
		e.from.ending = true
		e.from.reason = e.m.name
	case opLeft:
		e.from.ending = true
		if e.from == k.agent && k.next != nil && k.next.ready {
			k.left = k.agent // nothing waits for it: its successor need not wait for its end
			k.takeTurn()
		}
	case opUpgrade:
		k.beginUpgrade(e.m.fd)
		return
	}
	if e.m.fd >= 0 {
		_ = unix.Close(e.m.fd)
	}
}

// noticed writes down what the answerer found.
func (k *Keeper) noticed() {
	switch {
	case k.agent == nil || k.answerer.died.Load():
	case k.answerer.stopped.Load():
		k.say(Bypass, "the agent is stopped by a signal")
	case k.board.Bypassing.Load() != 0 && k.board.Serving.Load() != 0:
		k.cfg.Log.Warn("the agent does not answer: the keeper does", "pid", k.agent.pid)
		k.say(Bypass, "the agent does not answer")
	case k.agent.ready:
		k.say(Serving, "")
	}
	switch {
	case !k.answerer.swept.Load() || k.agent != nil:
	case k.next != nil && k.next.ready:
		k.takeTurn()
	case k.waitingForSweep():
		k.schedule()
	}
}

// signal passes a signal on to the agent; one that ends it ends the keeper too.
func (k *Keeper) signal(s syscall.Signal) {
	if s == unix.SIGHUP {
		if k.agent == nil && k.restart == nil {
			k.cfg.Log.Info("the agent is tried again")
			k.ends = nil
			k.begin()
		}
		return
	}
	k.ending = true
	k.restart = nil
	k.service.say("STOPPING=1")
	patience := k.cfg.EndPatience
	for _, c := range []*child{k.agent, k.next} {
		if c == nil {
			continue
		}
		_ = c.signal(s)
		if !c.ready { // it may hang, and has little to put in order
			patience = min(patience, unreadyPatience)
		}
	}
	if k.linger == nil {
		k.linger = time.After(patience)
	}
}

// Shorter than what they have who end services: at a shutdown, 90 s for the whole machine.
const (
	endPatience     = 10 * time.Second
	unreadyPatience = 2 * time.Second
)

// endLingering ends agents that were told to end and have not.
func (k *Keeper) endLingering() {
	k.linger = nil
	for _, c := range []*child{k.agent, k.next, k.left} {
		if c != nil {
			k.cfg.Log.Error("the agent was told to end and has not: it is ended", "pid", c.pid, "patience", k.cfg.EndPatience)
			_ = c.kill()
		}
	}
}

// reap takes note of every child that changed: agents, and what dead agents left to this process.
func (k *Keeper) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG|syscall.WUNTRACED|syscall.WCONTINUED, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		c := k.child(pid)
		switch {
		case c == nil:
		case status.Stopped():
			if c == k.agent {
				k.answerer.stopped.Store(true)
				k.answerer.wake()
			}
		case status.Continued():
			if c == k.agent {
				k.answerer.stopped.Store(false)
				k.answerer.wake()
			}
		default:
			k.ended(c, status)
		}
	}
}

func (k *Keeper) child(pid int) *child {
	for _, c := range []*child{k.agent, k.next, k.left} {
		if c != nil && c.pid == pid {
			return c
		}
	}
	return nil
}
