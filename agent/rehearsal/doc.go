// Package rehearsal tries a release of a product against this machine's own recent past before it gets a say. The release
// runs in its containment, with the grants and settings that it would have; it is told the recorded events and asked the recorded
// questions, in their order, with the files where they still are what they were; then it is asked about every critical file, about the common corpus
// (agent/rehearsal/corpus) and the tests that it brings; at last it is started once more. What it answers is
// compared with what the installed release answered then, or answers to the corpus now. It is not told that this is a rehearsal.
//
// Invariant: nothing that the release does or answers counts, and nobody waits for it.
package rehearsal
