// Package scan answers exec and open questions by what clamd finds in the file. It keeps what it learnt of a file's content
// for as long as clamd has the same signatures, and watches clamd so that nobody waits for one that is known to be away.
//
// Invariant: every question is answered before its deadline; what was not scanned is answered by the settings (on_error,
// on_large), reported, and never said to be cacheable.
package scan
