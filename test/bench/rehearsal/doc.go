// Package rehearsal measures what a machine feels of a rehearsal: how long execs and opens take while one runs and while none does, in turn, in one
// run; how long it takes on a full recorder; and how much memory the agent needs for it. `go test ./test/bench/rehearsal` is short;
//
//	BAILEY_TEST_ROOT=1 go test ./test/bench/rehearsal -count=1 -v -timeout 30m -rounds 5 -fill 67108864 -results "$PWD/test/bench/results/rehearsal.md"
//
// fills a recorder of the default size and writes down what it found.
//
// Invariant: both sides of a comparison are measured in the same run, one after the other and again.
package rehearsal
