// Package metrics shows what the agent counts to Prometheus. It counts nothing itself and remembers nothing: each scrape reads
// one snapshot of the agent, and whoever makes the snapshot pays for it.
//
// Invariant: no metric of Bailey's is registered anywhere but in the registry that New makes, and a name, once released, keeps
// its meaning.
package metrics
