// Package fetch has the network's side of updates done by another process, which has no privileges: it looks at mirrors and downloads, verifies
// what it got, and leaves it in a directory as a mirror of its own. The agent's side reads that directory as it would read a stick of
// unknown origin, and verifies everything again (update/trust). Serve is the one side, Repository the other; how the process is started and held is
// the caller's business.
//
// Invariant: nothing that the process says is believed. What it hands over is signed, or it is refused; and what it crashes or hangs on, the agent
// never reads.
package fetch
