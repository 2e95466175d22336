// Package client is what one machine does with the releases that a repository offers: each goes, one step at a time, from the mirror through a
// rehearsal into force, is watched there, and goes back if it does harm. The states and the moves between them are one table (state.go), and each
// state has a file of its own. What a state does can be done again after a power cut at any instruction: a step's result is on the
// disk before the next one begins, and no step minds that it was half done before.
//
// The package knows repositories (update/trust) and bundles (update/bundle). Of the machine it knows a Host, which runs products.
//
// Invariant: a release that was not verified, or that did not pass its rehearsal, never gets a say; and whatever is wrong with an update, the installed
// release goes on.
package client
