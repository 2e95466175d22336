// Package soak holds one test that runs the whole for a long time, under load and faults, and looks for what grows: memory,
// descriptors, goroutines, marks, control groups, pins. It checks no feature; the other suites do.
//
// Invariant: what it asks for at the end was there, in the same number, after the warm-up.
package soak
