// Package probe asks the running kernel what it can do, one feature at a time. It never looks at a version number, because
// distributions carry features back, and it changes nothing: what a probe opens, loads or attaches is closed before it
// returns, and no file is ever marked.
//
// Invariant: a feature is supported only if the very call that Bailey depends on was answered by this kernel.
package probe
