// Package inforce is which program of the agent itself is in force: a record in the state directory, the programs beside it, and the choice that
// the keeper makes by them at its start. It starts nothing and knows nothing of where releases come from.
//
// Invariant: whatever is in the state directory, Choose returns a program that root alone can change and that has not brought this machine down
// before it was proven, or none, which is the keeper's own.
package inforce
