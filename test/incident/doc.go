// Package incident replays public incidents in which security products broke the machines that they were to protect. One
// file replays one incident: its header says when it was, where it is described, what was shipped and what must hold. The part
// of the product plays test/faulty, installed, contained and asked as every product is. Where the harm came with an update, the
// incident is a delivery too (delivery_test.go): a signed repository offers the release to an agent that does the rest by itself; releases
// that differ by their fault alone are listed in updates_early_test.go and updates_late_test.go. It has no code but tests, and it does not
// replay what needs fleets.
//
// Invariant: while a fault lasts, every replay measures what the machine and a healthy second product feel, and judges by the
// limits of limits_test.go alone.
package incident
