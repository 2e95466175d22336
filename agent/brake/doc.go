// Package brake watches how much each product denies and takes the right to deny from one that denies too much: many
// different files of packages, many different files in all, files of the critical set, or a large part of all execs. A braked
// product is asked on; each of its denies becomes a finding instead of a verdict, until the operator releases it.
//
// It judges no deny to be wrong, only to be too many. The package database, the state file and everything else that can take
// time are Run's: while a deny is taken, memory is all that is looked at.
//
// Invariant: no product ever denies more different files than its limit within the window. There is no queue that could be
// full: what is remembered is bounded by the limit. What has not been looked up yet, or cannot be, counts as a package's.
package brake
