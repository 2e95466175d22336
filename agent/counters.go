package agent

import (
	"bailey/agent/sensor/file"
	"bailey/agent/sensor/process"
	"bailey/agent/verdict"
)

// fileCounters names the file sensor's counts for operators.
func fileCounters(f file.Stats) map[string]uint64 {
	return map[string]uint64{
		"read": f.Read, "asked": f.Asked, "exempt": f.Exempt, "unscoped": f.Unscoped, "loaded": f.Loaded, "unloaded": f.Unloaded,
		"late_answers": f.LateAnswers, "answer_errors": f.AnswerErrors, "overflow": f.Overflow, "emfile": f.EMFILE,
		"read_errors": f.ReadErrors, "nearly_full": f.NearlyFull, "overloaded": f.Overloaded, "rescues": f.Rescues, "unknown_kind": f.UnknownKind,
		"cache.set": f.CacheSet, "cache.taken_back": f.CacheTakenBack, "cache.skipped": f.CacheSkipped, "cache.errors": f.CacheErrors,
		"cache.dropped": f.CacheDropped, "cache.flushes": f.CacheFlushes, "ignored": f.Ignored,
		"events": f.Events, "events.own": f.EventsOwn, "events.lost": f.EventsLost, "events.unparsed": f.EventsUnparsed,
		"events.unnamed": f.EventsUnnamed, "superblocks": uint64(f.Superblocks), "uncovered": uint64(f.Uncovered), "scans": f.Scans,
	}
}

// processCounters names the process sensor's counts for operators.
func processCounters(c process.Counters) map[string]uint64 {
	return map[string]uint64{
		"execs": c.Execs, "forks": c.Forks, "exits": c.Exits, "outside": c.Outside,
		"lost.execs": c.LostExecs, "lost.forks": c.LostForks, "lost.exits": c.LostExits, "lost.scratch": c.LostScratch,
		"lost.recursions": c.Recursions, "argv_unread": c.ArgvUnread,
		"emitted.execs": c.EmittedExecs, "emitted.forks": c.EmittedForks, "emitted.exits": c.EmittedExits,
		"malformed": c.Malformed, "unknown_kinds": c.UnknownKinds, "unknown_processes": c.UnknownProcesses, "rescans": c.Rescans,
	}
}

// quantiles returns the median and the 99th percentile of the answers of all products, in nanoseconds.
func quantiles(products []verdict.ProductStats) (p50, p99 uint64) {
	var all verdict.Latencies
	for _, p := range products {
		all.Add(p.Took)
	}
	return uint64(all.Quantile(0.5)), uint64(all.Quantile(0.99))
}
