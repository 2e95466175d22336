// Package doomed holds tests that end the machine they run in. They are for the harness of test/vm, which must say how; elsewhere
// they are skipped.
//
// Invariant: nothing happens outside a virtual machine of test/vm.
package doomed
