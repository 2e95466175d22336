// Package corpus holds what every rehearsal asks about beside the machine's own past, so that a machine that has none does not learn the hard way:
// which files Debian, Ubuntu and Red Hat are made of, what administrators do all day, and files that are good beyond doubt. It is data:
//
//   - files.json: files by their role. Of each role the first path that is there is asked about, with the machine's real file.
//   - work.json: what is done on machines, as sequences of events and questions.
//   - good.json: whole files that no product has a reason to deny, with where they lie.
//
// A vendor's own tests come with the product, in its directory rehearsal (own.go). The package reads; it asks nobody and judges nothing.
//
// Invariant: what a product brings is bounded before it is read, and names no file but its own.
package corpus
