// Package rig is what tests of the whole of Bailey stand on: the built programs, an agent that watches one scratch
// filesystem, products to install on it, and taps on its events. It tests nothing by itself and knows no test.
//
// Invariant: an agent of a rig watches a filesystem that the rig mounted for it and nothing else, so a bug in the agent can
// hang a test and nothing more; and whatever happens to the test, its agent does not outlive it.
package rig
