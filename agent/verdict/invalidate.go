package verdict

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"bailey/agent/health"
)

// flushState makes concurrent invalidations share one flush.
type flushState struct {
	requested atomic.Uint64

	mu     sync.Mutex
	served uint64 // requests that the last flush, begun after they were made, has satisfied
	causes map[string]uint64
	count  uint64
	last   string
}

// Invalidate forgets every cached verdict, in the agent and in the kernel. When it returns, everything is asked again:
// answers to questions that were asked before are given, but not cached. Calls at the same time share one flush. cause is
// one of few fixed words. It may take a while and must not be called on the question path.
func (e *Engine) Invalidate(cause string) error {
	f := &e.flush
	mine := f.requested.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.causes[cause]++
	f.last = cause
	if f.served >= mine {
		return nil
	}
	serving := f.requested.Load()
	old := e.epoch.Add(1) - 1
	// Whoever decided under the old epoch may be setting its ignore mark now; such a mark must exist before the flush. Only
	// one older epoch can be in use, because epochs change under this lock, so its parity names it.
	for wait := time.Microsecond; e.marking[old&1].Load() != 0; wait = min(2*wait, time.Millisecond) {
		time.Sleep(wait) //nolint:forbidigo // a system call is waited for, which nothing announces
	}
	err := e.cfg.FlushKernel()
	f.count++
	if err == nil {
		f.served = serving
	}
	e.reportFlush(err)
	if err != nil {
		return fmt.Errorf("flush the kernel's cached verdicts after %s: %w", cause, err)
	}
	return nil
}

func (e *Engine) reportFlush(err error) {
	if e.cfg.Health == nil {
		return
	}
	entry := health.Entry{Component: "verdict.cache", Status: health.OK, Summary: "cached verdicts are dropped whenever they must be"}
	if err != nil {
		entry.Status = health.Failed
		entry.Summary = "the kernel may still allow files by verdicts that no longer hold: " + err.Error()
		entry.Remedy = "restart the agent; its marks end with it"
	}
	e.cfg.Health.Set(entry)
}

// Forget drops what is known of one file, because it was written. Questions about it that are in flight are answered, but
// their verdicts are not kept.
func (e *Engine) Forget(dev, ino uint64) {
	t := e.table
	hash := e.cache.hash(dev, ino)
	t.mu.Lock()
	for i := t.buckets[hash&uint64(len(t.buckets)-1)]; i != noSlot; i = t.slots[i].next {
		s := &t.slots[i]
		s.mu.Lock()
		if s.file.Dev == dev && s.file.Ino == ino {
			s.stale = true
		}
		s.mu.Unlock()
	}
	t.mu.Unlock()
	e.cache.forget(dev, ino)
}

// CacheStats describes the agent's own verdict cache. Hits of the kernel's ignore marks are not in it: nobody is told.
type CacheStats struct {
	Entries, Capacity  int
	Hits, Misses       uint64
	Inserts, Evictions uint64
	Forgotten          uint64 // entries dropped because their file was written
	Epoch              uint64
	Flushes            uint64
	Invalidations      map[string]uint64 // by cause
	LastCause          string
}

// CacheStats counts the cache's entries, which takes a moment: it is for operators.
func (e *Engine) CacheStats() CacheStats {
	c := e.cache
	epoch := e.epoch.Load()
	e.flush.mu.Lock()
	defer e.flush.mu.Unlock()
	return CacheStats{
		Entries: c.size(epoch), Capacity: len(c.sets) * cacheWays,
		Hits: c.hits.Load(), Misses: c.misses.Load(), Inserts: c.inserts.Load(), Evictions: c.evictions.Load(),
		Forgotten: c.forgotten.Load(), Epoch: epoch, Flushes: e.flush.count,
		Invalidations: maps.Clone(e.flush.causes), LastCause: e.flush.last,
	}
}
