// Package replay plays events as if they happened now: a sensor without a kernel, for tests and rehearsals. It has no format of
// its own: what is played is what agent/recorder kept (recorder.Events is a Source), or what a test makes. It plays events
// only: a recorded question has nobody waiting for it.
//
// Invariant: what is emitted is what the Source gave, in its order and never before its time.
package replay
