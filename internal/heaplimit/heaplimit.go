// Package heaplimit keeps a long-running process's memory flat. A Go heap that may grow to twice what lives in it has peaks as uneven as
// what lives when it is looked at, and holds what its highest peak took: over days a process that leaks nothing grows, ever more slowly.
// Here the peak is a limit that depends on what lives only in steps, so that it is the same one again and again.
package heaplimit

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// Smallest is the lowest limit, in bytes. Each step above it is an eighth higher.
const Smallest = 24 << 20

// percent of garbage beside what lives would be collected at if there were no limit: never, as long as the limit follows.
const percent = 400

// Keep holds the process to the step that fits what lives in it, from now on. What the operator set by GOGC or GOMEMLIMIT stays.
// Safe for concurrent use; the second call does nothing.
func Keep() { keep() }

var keep = sync.OnceFunc(func() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	k := newKeeper(collector.setLimit)
	k.look()
	k.arm()
	collector.setPercent(percent)
})

// collector is the process's garbage collector.
var collector hold

// hold is what it is set to once nobody holds it.
type hold struct {
	mu      sync.Mutex
	holders int
	limit   int64
	percent int
}

// Hold keeps the collector from running until release is called, whatever the heap takes meanwhile. It waits for a collection that
// runs. Safe for concurrent use; several may hold it.
func Hold() (release func()) { return collector.hold() }

func (h *hold) hold() (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holders++; h.holders == 1 {
		h.limit = debug.SetMemoryLimit(math.MaxInt64)
		h.percent = debug.SetGCPercent(-1) // which waits
	}
	return sync.OnceFunc(h.release)
}

func (h *hold) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holders--; h.holders == 0 {
		debug.SetGCPercent(h.percent)
		debug.SetMemoryLimit(h.limit)
	}
}

func (h *hold) setLimit(n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holders == 0 {
		debug.SetMemoryLimit(n)
		return
	}
	h.limit = n
}

func (h *hold) setPercent(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holders == 0 {
		debug.SetGCPercent(n)
		return
	}
	h.percent = n
}

// keeper looks after each collection.
type keeper struct {
	set     func(int64)
	limit   uint64
	samples [6]metrics.Sample
}

func newKeeper(set func(int64)) *keeper {
	k := &keeper{set: set}
	for i, name := range [...]string{
		"/gc/heap/live:bytes", "/memory/classes/total:bytes", "/memory/classes/heap/objects:bytes", "/memory/classes/heap/unused:bytes",
		"/memory/classes/heap/free:bytes", "/memory/classes/heap/released:bytes",
	} {
		k.samples[i].Name = name
	}
	return k
}

// garbage is something that nobody holds, so that the next collection finds it. With a pointer, or it would share its memory with
// others and be found later.
type garbage struct{ _ *int }

func (k *keeper) arm() {
	runtime.AddCleanup(&garbage{}, func(k *keeper) {
		k.look()
		k.arm()
	}, k)
}

func (k *keeper) look() {
	metrics.Read(k.samples[:])
	rest := k.samples[1].Value.Uint64()
	for _, s := range k.samples[2:] {
		rest -= min(rest, s.Value.Uint64())
	}
	if limit := next(k.limit, k.samples[0].Value.Uint64(), rest); limit != k.limit {
		k.limit = limit
		k.set(int64(min(limit, math.MaxInt64)))
	}
}

// next returns the limit that follows one for a heap of which live bytes live beside the runtime's rest. It leaves a limit that is
// too high by less than two steps, or what lives on the edge of one would move it up and down.
func next(limit, live, rest uint64) uint64 {
	fits := step(live + live/4 + rest)
	if limit >= fits && limit <= step(step(fits+1)+1) {
		return limit
	}
	return step(fits + 1) // one to spare
}

// step returns the first step that is not below n.
func step(n uint64) uint64 {
	s := uint64(Smallest)
	for s < n {
		s += s / 8
	}
	return s
}
