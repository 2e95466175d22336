// Package event is the vocabulary of the agent: what happened (Event), what waits for a verdict (Question), who did it
// (Process) and on what (File). It does no I/O and imports no other part of Bailey, so every part may import it.
//
// Invariant: a *Process and an *Event are immutable once they have been handed on; a *Question is answered exactly once.
package event
