// Package release is the vocabulary of updates: streams and their names, versions and constraints on them, and what a release says about
// itself beside its bytes (the `custom` of a TUF target, and the manifest of a bundle). It reads and writes no files.
//
// Invariant: who may publish what is decided by the stream alone, which the signed role and the target's path give; what a release says
// about itself can only agree with it.
package release
