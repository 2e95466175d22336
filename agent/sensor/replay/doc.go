// Package replay plays recorded events as if they happened now, and records them: one JSON object a line. It is a sensor
// without a kernel, for tests, rehearsals and bug reports. It is not the flight recorder's storage, and it plays events only:
// a recorded question has nobody waiting for it.
//
// Invariant: what Writer wrote, Reader gives back equal, byte for byte in every path and argument, valid UTF-8 or not.
package replay
