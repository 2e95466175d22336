// Package agent is the composition root: the only package that knows every part of the agent and how they are joined. The
// parts know one another by the small interfaces that each declares; what does not fit by itself is adapted here. It decides
// nothing of its own.
//
// Invariant: parts start in the order in which they need one another and stop in reverse, so that nobody who waits for a
// verdict is left behind by a part that went first.
package agent
