// Package clamd speaks to ClamAV's daemon over its unix socket, one connection a command, as clamd's manual describes: a
// scan hands the open file over (FILDES) or streams it (INSTREAM). It decides nothing about files and keeps no connection.
//
// Why one connection a scan: against clamd 1.4 a session (IDSESSION) was not measurably faster (on a busy machine 0.5 to
// 3.5 ms a small file, one connection each 1.2 to 2.7 ms; BenchmarkScan, BenchmarkSession), and it brings stale connections,
// replies out of order and clamd's idle timeout with it.
//
// Invariant: every call ends when its context does, whatever clamd does or does not do.
package clamd
