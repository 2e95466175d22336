// Package journal writes down what an auditor asks for later: what was granted, installed and removed, what operators did and
// who they were, which denies took effect and which did not count, how products and the agent's parts fared. It is not a log
// for debugging, not the flight recorder, and decides nothing.
//
// Invariant: every line carries the SHA-256 of the line before it and of itself, and what is missing (a queue that was full, a
// flood that was summed up, old segments that made room, a tail that a crash cut) is itself a line. Nobody waits for the
// journal but an operator's own request, and that one only for so long.
//
// # On disk
//
// DIR holds segments, named by the number of their first line. A line is one JSON object:
//
//	{"seq":7,"time":"…","boot":123,"boot_id":"…","kind":"deny","fields":{…},"prev":"…","hash":"…"}
//
// hash is the SHA-256 of the line's bytes before `,"hash":`, in lower-case hex; prev is the hash of the line with the number
// seq-1, which may be in the segment before. The first line of a segment has the kind segment. A segment is only ever
// appended to, and not touched any more once there is a newer one: after a crash that cut the last line the next segment
// begins, and its first line says how many bytes were cut and what their SHA-256 is. When the oldest segment makes room, a line
// of the kind dropped is synced first: it holds the number and hash of the last line that goes.
//
// Without a key that root cannot read, a chain proves only that nobody changed a part of it: who rewrites everything from some
// line on, or cuts the end, is found by comparing with a hash that was noted elsewhere (Verify's anchors).
package journal
