// Package boot tests Bailey as part of a whole system: it starts with the machine, outlives reboots, and a power cut costs at most
// what nobody was promised. The machines are those of test/vm/machine.
//
// Invariant: what a test asks of the agent, it asks as an operator inside the machine.
package boot
