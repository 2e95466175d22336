package agent

import (
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/journal"
	"bailey/agent/metrics"
	"bailey/agent/product"
	"bailey/agent/sensor/file"
	"bailey/agent/sensor/process"
	"bailey/agent/verdict"
	"bailey/internal/boottime"
)

// meter makes the snapshots that metrics are read from.
type meter Agent

var _ metrics.Source = (*meter)(nil)

func (a *Agent) newMetrics() (err error) {
	a.metrics, err = metrics.New(metrics.Config{Source: (*meter)(a), Keeper: (*meter)(a), Brakes: (*meter)(a), Log: a.log, Listen: a.cfg.Metrics.Listen})
	return err
}

// Keeper returns what the keeper counted; zeros without one.
func (m *meter) Keeper() metrics.KeeperCounts {
	if m.parent == nil {
		return metrics.KeeperCounts{}
	}
	b := m.parent.Board()
	return metrics.KeeperCounts{Bypassed: b.Bypassed.Load(), Restarts: b.Restarts.Load(), Bypass: b.Bypassing.Load() != 0}
}

// Brakes returns the products that are braked.
func (m *meter) Brakes() []metrics.Brake {
	var out []metrics.Brake
	for _, b := range m.brake.List() {
		out = append(out, metrics.Brake{Product: b.Product, Engaged: true, Denies: b.Denies})
	}
	return out
}

// Snapshot returns what all parts counted so far.
func (m *meter) Snapshot() metrics.Snapshot {
	files, engine, cache := m.files.Stats(), m.engine.Stats(), m.engine.CacheStats()
	processes, _ := m.processes.Counters() // what can be read of them
	log := m.journal.Stats()
	waiting, size := m.processes.Ring()
	s := metrics.Snapshot{
		Version: m.build.Version, Revision: m.build.Revision,
		Started: time.Now().Add(-time.Duration(boottime.Now() - m.started)),
		Asked: map[string]uint64{
			event.Exec.String(): files.Execs, event.Open.String(): files.Read - min(files.Read, files.Execs),
		},
		Verdicts: verdicts(files, engine), InFlight: uint64(max(files.Pending, 0)), Products: m.installed(),
		Cache: metrics.Cache{
			Entries: uint64(cache.Entries), Hits: cache.Hits, Misses: cache.Misses, Cleared: cache.Invalidations,
			Marks: files.CacheSet - min(files.CacheSet, files.CacheTakenBack+files.CacheDropped),
		},
		Lost: m.lost(files, processes, log), Published: m.hub.Stats().Events,
		Files: metrics.Files{
			Counts: fileCounters(files), FileSystems: files.Superblocks, Uncovered: files.Uncovered, Pending: uint64(max(files.Pending, 0)),
		},
		Processes: metrics.Processes{Counts: processCounters(processes), RingWaiting: waiting, RingBytes: size},
		Journal:   metrics.Journal{Seq: log.Head.Seq, Lines: log.Lines, SummedUp: log.SummedUp, Failing: log.Failing},
	}
	// They have series of their own.
	delete(s.Files.Counts, "superblocks")
	delete(s.Files.Counts, "uncovered")
	m.wellbeing(&s)
	return s
}

// verdicts splits the sensor's account, which has every question once, by what only the engine knows: whether it denied.
func verdicts(files file.Stats, engine verdict.Stats) []metrics.Verdict {
	var out []metrics.Verdict
	for _, r := range event.Reasons() {
		all, denied := files.Answered[r], engine.Denied[r]
		denied = min(denied, all)
		if all > 0 {
			out = append(out, metrics.Verdict{Reason: r.String(), Allow: true, Count: all - denied})
		}
		if denied > 0 {
			out = append(out, metrics.Verdict{Reason: r.String(), Count: denied})
		}
	}
	return out
}

// lost is everything that was lost, by cause. What belongs to one product is in the product's own account as well.
func (m *meter) lost(f file.Stats, p process.Counters, j journal.Stats) []metrics.Loss {
	out := []metrics.Loss{
		{What: "question", Cause: "kernel_queue", Count: f.Overflow},
		{What: "question", Cause: "descriptors", Count: f.EMFILE},
		{What: "question", Cause: "unreadable", Count: f.ReadErrors},
		{What: "file_event", Cause: "kernel_queue", Count: f.EventsLost},
		{What: "exec_event", Cause: "ring", Count: p.LostExecs},
		{What: "fork_event", Cause: "ring", Count: p.LostForks},
		{What: "exit_event", Cause: "ring", Count: p.LostExits},
		{What: "exec_event", Cause: "scratch", Count: p.LostScratch},
		{What: "process_event", Cause: "recursion", Count: p.Recursions},
		{What: "journal_line", Cause: "no_room", Count: j.Lost},
	}
	var events, findings uint64
	for _, c := range m.hub.Stats().Clients {
		events += c.Dropped
		findings += c.FindingsDropped
	}
	out = append(out, metrics.Loss{What: "product_event", Cause: "product_queue", Count: events},
		metrics.Loss{What: "finding", Cause: "rate", Count: findings})
	if m.dropped != nil {
		out = append(out, metrics.Loss{What: "log_line", Cause: "slow_reader", Count: m.dropped()})
	}
	return out
}

func (m *meter) wellbeing(s *metrics.Snapshot) {
	s.Health = map[string]int{health.OK.String(): 0, health.Degraded.String(): 0, health.Failed.String(): 0}
	for _, e := range m.health.List() {
		s.Health[e.Status.String()]++
		if e.Status != health.OK {
			s.Unwell = append(s.Unwell, metrics.Unwell{Component: e.Component, Status: e.Status.String()})
		}
	}
}

// installed is the account of every installed product, also while it is not attached.
func (m *meter) installed() []metrics.Product {
	accounts := (*operator)(m).accounts()
	var out []metrics.Product
	for _, v := range m.products.List() {
		out = append(out, productMetrics(v, accounts[v.Name]))
	}
	return out
}

func productMetrics(v product.View, a account) metrics.Product {
	p := metrics.Product{
		Name: v.Name, Release: v.Release, State: string(v.Status.State), Authority: authority(v, a), Restarts: uint64(v.Status.Restarts),
		Memory: uint64(max(v.Status.Memory, 0)), CPU: v.Status.CPU, Outcomes: map[string]uint64{},
	}
	if c := a.member; c != nil {
		p.Events, p.EventsLost, p.EventsQueued, p.QueuedBytes, p.EventsUnacked = c.Sent, c.Dropped, c.Queued, c.QueuedBytes, c.Unacked
		p.Findings, p.FindingsLost, p.Faults = c.Findings, c.FindingsDropped, c.Faults
	}
	if s := a.answers; s != nil {
		p.Live, p.Shadow, p.Denies, p.Late, p.Degradations = s.Live, s.Shadow, s.Denied, s.Late, s.Degradations
		for o, n := range map[event.AnswerOutcome]uint64{
			event.Answered: s.Answered, event.Overridden: s.Overridden, event.Missed: s.Missed, event.Unsent: s.Unsent,
			event.Gone: s.Gone, event.Unneeded: s.Unneeded,
		} {
			p.Outcomes[o.String()] = n
		}
		p.Latency = map[string]metrics.Latency{}
		for said, l := range map[string]*verdict.Latencies{"allow": &s.TookAllow, "deny": &s.TookDeny, "overridden": &s.TookOverride} {
			p.Latency[said] = metrics.Latency{Below: l.Below[:], Sum: l.Sum}
		}
	}
	return p
}
