// Package critical computes the files without which the machine does not start, cannot be logged in to, cannot reach the
// network or cannot be repaired: what no product may deny unless the operator granted it. It is computed from the running
// system and the package database; only the roles (which programs are a login, a package manager, a network) are listed.
//
// It is not a list of trusted files and says nothing about content: it only limits what a product's mistake can break.
//
// Invariant: Contains takes no lock, opens no file and asks nobody; it reads one immutable snapshot, which a refresh
// replaces when it is complete.
package critical
