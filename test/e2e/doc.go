// Package e2e tests the whole of Bailey as its users meet it: the built binary, a running agent with its real sensors,
// contained products and real subject processes, each test on a scratch filesystem of its own. It has no code but tests.
//
// Invariant: no test marks a filesystem that anything else uses, so a bug in the agent can hang a test and nothing more.
package e2e
