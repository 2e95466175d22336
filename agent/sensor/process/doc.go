// Package process is the sensor that says which process started another, became another program and ended, and keeps the
// tree of all processes that the rest of the agent asks who did something. It decides nothing, and it reads a process's
// memory only for its arguments at exec.
//
// Three BPF programs on the kernel's scheduler tracepoints fill a ring buffer; a task iterator reads the processes that were
// there before; one goroutine on its own thread keeps the tree and hands events on. Where the kernel refuses them, /proc is
// read again and again instead, and the health registry says so. Pinned, the programs and the ring outlive the sensor, and
// the next one goes on where it stopped.
//
// Invariant: the tree is changed before the event that changed it is emitted, what could not be seen is counted, and a
// record leaves the ring only after its event was emitted.
package process
