package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"bailey/agent/boot"
	"bailey/agent/brake"
	"bailey/agent/config"
	"bailey/agent/control"
	"bailey/agent/critical"
	"bailey/agent/event"
	"bailey/agent/guard"
	"bailey/agent/health"
	"bailey/agent/hub"
	"bailey/agent/journal"
	"bailey/agent/keeper"
	"bailey/agent/metrics"
	"bailey/agent/product"
	"bailey/agent/product/link"
	"bailey/agent/recorder"
	"bailey/agent/rules"
	"bailey/agent/sensor/file"
	"bailey/agent/sensor/probe"
	"bailey/agent/sensor/process"
	"bailey/agent/unlock"
	"bailey/agent/verdict"
	"bailey/internal/boottime"
	"bailey/internal/buildinfo"
	"bailey/update/client"
)

// Options is what an Agent is made of.
type Options struct {
	Config  *config.Config // complete and valid
	Log     *slog.Logger   // must never wait for its reader
	Build   buildinfo.Info
	Args    []string       // that it was started with, without the program's name
	Dropped func() uint64  // log lines that were dropped
	Parent  *keeper.Client // the keeper that started this agent; nil when it runs alone
	Keeper  Keeper         // holds what outlives this agent, if that is not Parent; nil: nothing does
}

// Keeper is the process that outlives this agent and hands the next one what it keeps.
type Keeper = product.Keeper

// Agent is a whole agent. Make it with New, then Run it; one that is not run must be closed.
type Agent struct {
	cfg     *config.Config
	log     *slog.Logger
	build   buildinfo.Info
	args    []string
	started uint64 // nanoseconds since boot
	bootID  string
	dropped func() uint64
	parent  *keeper.Client
	leaving atomic.Bool // to a successor
	want    want
	bpffs   *process.BPFFS

	health    *health.Registry
	hub       *hub.Hub
	codec     *link.Codec
	engine    *verdict.Engine
	processes *process.Sensor
	files     *file.Sensor
	critical  *critical.Set
	brake     *brake.Brake
	products  *product.Manager
	control   *control.Server
	journal   *journal.Journal
	ledger    *ledger
	metrics   *metrics.Metrics
	daemons   *daemons
	rescan    *rescan
	ready     *readiness
	keeper    Keeper
	recorder  *recorder.Recorder // nil where the operator wants none
	guard     *guard.Guard       // nil where there is none; set before guarded is closed
	guarded   chan struct{}
	guardOff  bool         // by the kernel's command line
	lock      unlock.Guard // the guard's, for who has a token; nil where there is none
	door      *unlock.Door
	rules     *rules.Rules // nil where the operator wants none
	ruled     ruled
	updates   atomic.Pointer[client.Client] // nil where nothing is followed
	boot      *boot.Boot
	booted    *boot.Judgement // what was found when the boot began; nil if another agent ran in it before
	safeBoot  bool            // by the kernel's command line
	own       *own

	sensorsOff string // why this agent leaves the sensors off; empty: it does not
}

// New takes the control socket, attaches to the kernel and reads what is installed. Nothing is asked and no product runs
// before Run.
func New(o Options) (*Agent, error) {
	a := &Agent{
		cfg: o.Config, log: o.Log, build: o.Build, args: o.Args, dropped: o.Dropped, parent: o.Parent,
		started: boottime.Now(), bootID: bootID(),
		health: health.NewRegistry(), codec: new(link.Codec), daemons: newDaemons(), rescan: newRescan(),
		ready: newReadiness(), keeper: o.Keeper, want: want{opened: make(chan struct{})}, guarded: make(chan struct{}),
	}
	if a.parent != nil {
		a.keeper = a.parent
	}
	a.ledger = newLedger(a)
	a.own = newOwn(a)
	steps := []struct {
		what string
		make func() error
	}{
		{"make the journal", a.newJournal},
		{"make the metrics", a.newMetrics},
		{"read the kernel's command line", a.readCommandLine},
		{"make the guard's door", a.newDoor},
		{"take the control socket", a.newControlUnlessStandby},
		{"make the hub", a.newHub},
		{"make the recorder", a.newRecorder},
		{"make the critical set", a.newCritical},
		{"make the verdict engine", a.newEngine},
		{"take over the rules", a.newRules},
		{"make the brake", a.newBrake},
		{"follow the products' states", a.ledger.follow},
		{"read the installed products", a.newProducts},
		{"judge the boot before", a.newBoot},
		{"start the process sensor", a.newProcesses},
		{"start the file sensor", a.newFiles},
	}
	for _, s := range steps {
		if err := s.make(); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", s.what, err), a.Close())
		}
	}
	reportMissing(a.health, probe.All())
	a.health.Watch(a.publishHealth)
	return a, nil
}

// Close releases what New took; only for an agent that is not run.
func (a *Agent) Close() error {
	a.ledger.close()
	if a.files != nil {
		a.files.Close()
	}
	if a.hub != nil {
		a.hub.Close()
	}
	var errs []error
	if a.processes != nil {
		errs = append(errs, a.processes.Close())
	}
	if a.rules != nil {
		errs = append(errs, a.rules.Leave())
	}
	if a.control != nil {
		errs = append(errs, a.control.Close())
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends, a part fails, or the keeper wants everything left to a successor. When it returns nobody waits
// for a verdict; without a successor, no product runs and nothing of the agent is left in the kernel.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.takeTurn(ctx); err != nil {
		return errors.Join(err, a.Close())
	}
	a.takeRules()
	ctx, leave := a.untilLeave(ctx)
	defer leave()
	a.log.Info("agent starts", "version", a.build.Version, "state", a.cfg.Agent.State, "run", a.cfg.Agent.Run)
	endJournal := a.ledger.run()
	stages := append(a.recording(), []stage{
		{"process sensor", a.processes.Run},
		{"guard", a.runGuard},
		{"unit", a.runUnit},
		{"rules", a.runRules},
		{"verdict engine", a.engine.Run},
		{"brake", a.brake.Run},
		{"critical set", a.critical.Run},
		{"products", a.runProducts},
		{"boot", a.runBoot},
		{"inheritance", a.inherit},
		{"file sensor", a.runFiles},
		{"mount watch", func(ctx context.Context) error { return a.rescan.run(ctx, a.files.Rescan) }},
		{"state disk", a.watchDisk},
		{"wall clock", a.watchClock},
		{"guard's door", a.runDoor},
		{"control", a.control.Run},
		{"metrics", a.metrics.Run},
		{"own release", a.own.run},
	}...)
	err := runStages(ctx, append(stages, a.updating()...))
	if err == nil && !a.leaving.Load() {
		a.own.ended()
	}
	a.hub.Close()
	endJournal(err)
	a.log.Info("agent ends", "successor", a.leaving.Load())
	a.endBoot(err)
	return errors.Join(err, a.endRules(err), a.endGuard(err), a.endProcesses())
}

func (a *Agent) newHub() (err error) {
	a.hub, err = hub.New(hub.Config{
		Encoder: a.codec, Now: boottime.Now, OnSubscriptions: a.subscriptions, Log: a.log, Health: a.health,
		Window: eventWindow,
	})
	return err
}

// subscriptions hears what somebody wants. Until the products of an earlier agent have said so again, nothing is changed: what
// their agent set in the kernel is in force, and what waits there is for all of them.
func (a *Agent) subscriptions(events, questions event.KindSet, scope []string) {
	events &^= event.KindsOf(event.Verdict, event.Finding, event.Product, event.Health, event.Tamper) // the agent's own need no sensor
	a.want.mu.Lock()
	defer a.want.mu.Unlock()
	a.want.events, a.want.questions, a.want.scope, a.want.said = events, questions, scope, true
	if a.want.open {
		a.tellSensors(events, questions, scope)
	}
}

// tellSensors tells the sensors what somebody wants. What the file sensor says and asks names processes: the process
// sensor works before it and rests after it.
func (a *Agent) tellSensors(events, questions event.KindSet, scope []string) {
	switch {
	case a.sensorsOff != "":
		events, questions = 0, 0
	case a.products.Held() != "":
		questions = 0
	}
	wanted := events != 0 || questions != 0
	if wanted {
		a.processes.SetWanted(true)
	}
	a.files.SetOpenScope(scope)
	a.files.SetEvents(events)
	a.files.SetQuestions(questions.Has(event.Exec), questions.Has(event.Open))
	if !wanted {
		a.processes.SetWanted(false)
	}
}

func (a *Agent) newCritical() (err error) {
	platform := []string{a.cfg.Agent.State, a.cfg.Agent.Run}
	if programs, err := a.ownPrograms(); err == nil {
		platform = append(platform, programs...)
	}
	a.critical, err = critical.New(critical.Config{
		Platform: platform, Extra: a.cfg.Critical.Extra, Log: a.log, Health: a.health, OnChange: a.criticalChanged,
		Keeper: a.keeper,
	})
	return err
}

// criticalChanged forgets verdicts that were given, and ends rules that were installed, when other files were critical.
func (a *Agent) criticalChanged() {
	if a.rules != nil {
		a.rules.Recheck()
	}
	if err := a.engine.Invalidate("critical"); err != nil {
		a.log.Warn("verdicts could not be forgotten", "err", err)
	}
}

func (a *Agent) newEngine() (err error) {
	q := a.cfg.Questions
	cfg := verdict.Config{
		Electorate: a.hub, Now: boottime.Now,
		Deadlines:        map[event.Kind]time.Duration{event.Exec: q.ExecDeadline.Duration, event.Open: q.OpenDeadline.Duration},
		CriticalDeadline: q.CriticalDeadline.Duration,
		ExtendCap:        q.ExtendCap.Duration,
		MaxInFlight:      q.MaxInFlight,
		Critical:         a.critical.Contains,
		FlushKernel:      func() error { return a.files.FlushCache() },
		Outcome:          a.hub.Publish,
		Wanted:           func() bool { return a.hub.Wants(event.Verdict) },
		Notable:          a.journal.Observe,
		OnAuthority:      a.setDegraded,
		Admit:            func(d *event.Denial) bool { return a.brake.Admit(d) },
		OnDeny:           func(d event.Denial) { a.brake.Denied(d) },
		Health:           a.health,
		Beats:            a.beats(),
		Open:             a.open(),
		NoCache:          !a.cfg.Cache.Enabled,
		Generation:       a.generation(),
	}
	if a.engine, err = verdict.New(cfg); err != nil {
		return err
	}
	a.hub.Bind(a.engine)
	return nil
}

func (a *Agent) newProcesses() (err error) {
	never := newNeverAsk(a.cfg.NeverAskExecutables())
	a.processes, err = process.New(process.Config{
		Emit: a.processEvent, Log: a.log, Health: a.health, NeverAsk: never.has, Pins: a.pins(), WithoutBPF: a.sensorsOff != "",
	})
	if err != nil {
		return err
	}
	return a.processes.MarkPlatform(a.platformRoot())
}

// processEvent is called on the process sensor's thread.
func (a *Agent) processEvent(e *event.Event) {
	switch e.Kind {
	case event.Exec:
		a.rescan.saw(e.Process)
	case event.Exit:
		a.rescan.ended(e.Process)
	}
	a.hub.Publish(e)
}

func (a *Agent) newFiles() (err error) {
	a.files, err = file.New(file.Config{
		Watch: a.cfg.Watch.Paths, Processes: a.processes, Identity: a.processes,
		Exempt: func(pid uint32) bool { return a.daemons.has(a.processes.Lookup(pid)) },
		Ask:    a.engine.Ask, Emit: a.hub.Publish, Forget: a.engine.Forget, ForgetAll: a.eventsLost, Log: a.log, Health: a.health, MaxPending: a.cfg.Questions.MaxInFlight,
		Keeper: a.keeper, Pulse: a.pulse(),
	})
	return err
}

// eventsLost forgets every verdict: any file may have been written unheard.
func (a *Agent) eventsLost() {
	if err := a.engine.Invalidate("events_lost"); err != nil {
		a.log.Warn("verdicts could not be forgotten", "err", err)
	}
}

func (a *Agent) newControl() (err error) {
	a.control, err = control.New(control.Config{
		Run: a.cfg.Agent.Run, Agent: (*status)(a), Products: (*operator)(a), Cache: (*cache)(a),
		Brake: (*brakes)(a), Door: (*door)(a), Rules: (*ruleList)(a), Updates: (*updates)(a),
		AppendEvent: a.codec.AppendEvent, Log: a.log, Audit: a.ledger.audit, Permit: a.permit, Metrics: a.metrics.Handler(),
	})
	return err
}

func (a *Agent) publishHealth(e health.Entry) { a.hub.Publish(healthEvent(e)) }

func healthEvent(e health.Entry) *event.Event {
	return &event.Event{Kind: event.Health, Time: boottime.Now(), Health: &event.HealthDetail{
		Component: e.Component, Status: e.Status.String(), Summary: e.Summary, Remedy: e.Remedy,
	}}
}

// bootID names the machine's uptime; empty where the kernel does not say.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (a *Agent) newProducts() (err error) {
	a.products, err = product.New(product.Config{
		State: a.cfg.Agent.State, Run: a.cfg.Agent.Run, Host: host{a}, Health: a.health, Log: a.log, Emit: a.productEvent,
		UIDBase: a.cfg.Products.UIDBase, Keeper: a.keeper, Promote: a.promote,
	})
	return err
}
