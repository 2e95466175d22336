// Package file is the sensor for files: it asks before a file is executed or opened (questions, through fanotify groups
// that hold the opener until it is answered) and tells what happened to files afterwards (events, through another group
// that reports file handles and names). It is not a policy: it answers by itself only for the platform, for exempt daemons,
// for kernel threads, for what lies outside the open scope, and where asking is impossible.
//
// Invariant: every permission event that was read is one event.Question that is answered exactly once, on every path; the
// thread that reads them opens no file, logs nothing and waits for nothing that a file opener can hold.
package file
