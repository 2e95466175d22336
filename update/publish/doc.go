// Package publish makes and changes a repository of releases: two directories of static files that any web server can serve. It signs with
// keys that it is given and keeps none. It is the other side of package trust, and before it signs anything it verifies what is there, because
// whoever can write to the directory must not be able to have something signed.
//
// Invariant: a change appears at once and whole, with the timestamp that is written last; every file before it has a name that nothing
// refers to yet.
package publish
