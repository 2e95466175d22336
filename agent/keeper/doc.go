// Package keeper is the small parent process of the agent. It holds what must outlive the agent (the fanotify groups, the
// products' sockets, whatever else the agent gives it by name), watches whether the agent answers, answers in its place when
// it does not, and starts it again. It asks no product, knows no event but the number of a waiting question, and decides
// nothing: its only answer is the operator's default.
//
// Two goroutines matter. The answerer (answer.go) has a thread of its own, waits for nobody, opens no file and allocates
// nothing; the rest (run.go, store.go, start.go) keeps descriptors and starts agents, and may be slow.
//
// How a question gets its answer when the agent cannot give it: the kernel knows a pending question by the number that its
// descriptor has in the table of the process that read it. A write of that number to the group answers it, whoever writes
// and whether or not the reader still lives. So the answerer writes every number that the agent can have used (sweep), which
// takes microseconds where nothing waits, and the kernel says which of them were questions: the count is exact. What nobody
// has read yet the answerer reads and answers one by one. The numbers of its own descriptors are ReservedFrom to ReservedTo,
// which every agent has occupied since before its first instruction, so that an agent that was only stopped, and goes on,
// cannot answer a question of the answerer's by mistake: it is told that nobody waits.
//
// Nothing is started here, nor in the agent, but by internal/launch: the start of a program can be a question of one's own.
//
// Invariant: while the keeper lives, no question waits longer than the keeper's patience (strikes times tick) for an agent that does not
// answer; one that was read by an agent which then stopped before it took note of it, where nobody else asks, than restStrikes times tick.
package keeper
