// Package ownthread lets a goroutine spend its life in blocking system calls without hurting itself or others. It is not a
// scheduler: what a goroutine reads, and when it ends, is its own business.
//
// Go's runtime learns only after 20 µs to 10 ms that a system call blocks. Until then the thread keeps one of GOMAXPROCS
// processors; with as many such threads as processors, whoever wakes up waits until the runtime's monitor takes one away.
// And a goroutine that never passes through the scheduler looks as if it hogged its processor: from 10 ms on the monitor
// takes it away in every system call, and runs 20,000 times a second to do so (sysmon, retake and preemptone in Go 1.26). Both cost more
// than the system calls do: on a machine with one CPU they made a question to one product 60 % slower.
//
// Invariant: while N goroutines are entered, GOMAXPROCS is N more than it was.
package ownthread

import (
	"runtime"
	"time"
)

// every is how often a goroutine passes through the scheduler; the monitor's patience is 10 ms.
const every = 4 * time.Millisecond

// Thread is one goroutine's stay in blocking system calls. Not safe for concurrent use.
type Thread struct {
	start   time.Time
	yielded time.Duration // since start
}

// Enter gives the calling goroutine's system calls a processor of their own until Leave.
func Enter() *Thread {
	add(1)
	return &Thread{start: time.Now()}
}

// Leave gives the processor back.
func (t *Thread) Leave() { add(-1) }

// Yield is to be called now and then between system calls, best before one that is likely to block. It costs as much as
// reading the clock, but for once in a few milliseconds.
func (t *Thread) Yield() {
	if now := time.Since(t.start); now-t.yielded > every {
		t.yielded = now
		runtime.Gosched()
	}
}
