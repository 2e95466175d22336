package heaplimit

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestNext(t *testing.T) {
	const mib = 1 << 20
	first := next(0, 4*mib, 2*mib)
	if first <= Smallest || first > 2*Smallest {
		t.Errorf("a small heap has %d", first)
	}
	if got := next(first, 5*mib, 2*mib); got != first {
		t.Errorf("from %d to %d for one MiB more", first, got)
	}
	limit := first
	for live := uint64(4 * mib); live < 4000*mib; live += 3 * mib {
		limit = next(limit, live, 10*mib)
		if need := live + live/4 + 10*mib; limit < need || limit > 2*need && limit > 2*Smallest {
			t.Fatalf("%d MiB live have a limit of %d MiB", live/mib, limit/mib)
		}
	}
	for live := uint64(4000 * mib); live > 3*mib; live -= 3 * mib {
		limit = next(limit, live, 10*mib)
	}
	if limit > 2*Smallest {
		t.Errorf("a heap that shrank keeps a limit of %d MiB", limit/mib)
	}
}

// TestKeeperFollows: the limit is that of what lives, after the collections that find it.
func TestKeeperFollows(t *testing.T) {
	limits := make(chan int64, 100)
	k := newKeeper(func(n int64) { limits <- n })
	k.look()
	k.arm()
	await := func(what string, ok func(int64) bool) {
		t.Helper()
		timeout := time.After(10 * time.Second)
		for {
			runtime.GC()
			select {
			case n := <-limits:
				if ok(n) {
					return
				}
			case <-timeout:
				t.Fatalf("no limit is %s", what)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	held := make([]byte, 200<<20)
	await("above 250 MiB", func(n int64) bool { return n > 250<<20 })
	runtime.KeepAlive(held) // until here
	await("below 100 MiB", func(n int64) bool { return n < 100<<20 })
}

var sink []byte

// TestHold: while somebody holds the collector nothing collects, whatever is taken, and what was set meanwhile holds afterwards.
func TestHold(t *testing.T) {
	var h hold
	first, second := h.hold(), h.hold()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 64 {
		sink = make([]byte, 4<<20)
	}
	h.setLimit(100 << 20)
	first()
	first()
	for range 64 {
		sink = make([]byte, 4<<20)
	}
	runtime.ReadMemStats(&after)
	if after.NumGC != before.NumGC {
		t.Errorf("%d collections while it was held", after.NumGC-before.NumGC)
	}
	second()
	if limit := debug.SetMemoryLimit(math.MaxInt64); limit != 100<<20 {
		t.Errorf("afterwards the limit is %d", limit)
	}
	for range 64 {
		sink = make([]byte, 4<<20)
	}
	runtime.ReadMemStats(&after)
	if after.NumGC == before.NumGC {
		t.Error("no collection after it was let go")
	}
}
