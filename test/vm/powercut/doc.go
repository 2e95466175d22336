// Package powercut takes the power of a machine again and again while the agent in it takes updates, and looks after each boot whether the
// machine is in order: a good release runs, what is remembered of the update says so, and nobody had to do anything. The machine is a kernel with an
// initramfs and a disk; what happens in it does the program inside.
//
// Invariant: only what the machine itself found in order after a boot counts as such.
package powercut
