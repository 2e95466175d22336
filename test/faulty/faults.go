package main

import (
	"fmt"
	"os"
	"time"
	"unsafe"

	"bailey/sdk"

	"golang.org/x/sys/unix"
)

// faults are the ways in which it breaks, by the words of the setting fault. The question is nil unless the moment is one.
var faults = map[string]func(*behaviour, *sdk.Question){
	"panic":      func(*behaviour, *sdk.Question) { panic("told to crash") },
	"index":      func(b *behaviour, _ *sdk.Question) { _ = make([]string, sensorFields)[sensorFields+len(b.denyContent)] },
	"segv":       func(*behaviour, *sdk.Question) { segfault() },
	"exit0":      func(*behaviour, *sdk.Question) { os.Exit(0) },
	"exit1":      func(*behaviour, *sdk.Question) { os.Exit(1) },
	"stop":       func(*behaviour, *sdk.Question) { stopSelf() },
	"hang":       func(*behaviour, *sdk.Question) { select {} },
	"sleep":      func(*behaviour, *sdk.Question) { time.Sleep(time.Hour) },
	"memory":     func(b *behaviour, _ *sdk.Question) { go b.eatMemory() },
	"map":        func(b *behaviour, _ *sdk.Question) { b.mapMuch() },
	"files":      func(b *behaviour, _ *sdk.Question) { b.hoardFiles() },
	"processes":  func(b *behaviour, _ *sdk.Question) { go b.forkBomb() },
	"spin":       func(b *behaviour, _ *sdk.Question) { b.spin() },
	"state":      func(b *behaviour, _ *sdk.Question) { go b.fillState() },
	"corrupt":    func(*behaviour, *sdk.Question) { corruptState() },
	"log":        func(*behaviour, *sdk.Question) { go floodLog() },
	"seize":      func(b *behaviour, _ *sdk.Question) { go b.seize() },
	"malformed":  func(*behaviour, *sdk.Question) { malformed() },
	"oversized":  func(*behaviour, *sdk.Question) { oversized() },
	"agentskind": func(*behaviour, *sdk.Question) { agentsKind() },
	"unasked":    func(*behaviour, *sdk.Question) { unasked() },
	"twice":      func(_ *behaviour, q *sdk.Question) { twice(q) },
	"descriptor": func(*behaviour, *sdk.Question) { sendDescriptor() },
	"overack":    func(*behaviour, *sdk.Question) { overAck() },
	"findings":   func(b *behaviour, _ *sdk.Question) { go b.floodFindings() },
}

// playRole is what it does where it is no product: as a copy that it started, or to test itself, which is soon done.
func playRole(role string) error {
	switch role {
	case "sleep":
		time.Sleep(time.Hour)
	case "self_test":
	default:
		return fmt.Errorf("no role is called %q", role)
	}
	return nil
}

// segfault dies of a real SIGSEGV. Go's runtime would turn it into a panic or a traceback, so its handler goes first.
func segfault() {
	var byDefault [4]uint64 // struct sigaction: SIG_DFL, no flags
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSEGV), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
	if e != 0 {
		panic(e)
	}
	address := uintptr(0xdead000)
	*(*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&address))) = 1 // mapped nowhere
}

// stopSelf is what a debugger, a job control signal or a freezer does to a product.
func stopSelf() { _ = unix.Kill(os.Getpid(), unix.SIGSTOP) }
