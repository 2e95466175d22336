// Package trust finds out which releases a repository offers, and fetches them, believing nothing but signatures that lead to a root that
// came with the agent. It is a client of The Update Framework: go-tuf verifies each file, and what is around it is this package's,
// because with one vendor's key the client of go-tuf could be crashed, or made to take another vendor's releases
// (docs/decisions/0020-update-trust.md). It installs nothing, and it decides nothing about when.
//
// A repository is two trees of static files, metadata and targets, on any web server or in any directory. Every file of metadata goes through
// the guard (guard.go) before go-tuf sees it, also those that were kept on the disk. The newest root ever verified is kept with all before it,
// and is where the next look begins. Time never runs back behind what was signed (state.go).
//
// Invariant: nothing is returned that was not verified, and an error changes nothing that was known before.
package trust
