// Package sdk is how a security product written in Go talks to Bailey. A product is an unprivileged process that the
// agent starts with a socket as descriptor 3. It subscribes to events and questions; an event is something that happened,
// a question is something in the kernel that waits for this product's answer.
//
//	func main() {
//		err := sdk.Run(context.Background(), sdk.Product{
//			Name:      "hello",
//			Questions: []sdk.Kind{sdk.Exec},
//			OnQuestion: func(ctx context.Context, q *sdk.Question) sdk.Answer {
//				if strings.HasPrefix(q.File.GetPath(), "/tmp/") {
//					return sdk.Deny
//				}
//				return sdk.Allow.CacheFile()
//			},
//		})
//		...
//	}
//
// The package is not a way to observe or to act on the machine: it opens no files and has no privilege; everything it
// knows came through the socket. Only this package and sdk/sdktest carry a promise of compatibility.
//
// # Threads
//
// Run's own goroutine reads the socket, blocking a thread and not using Go's poller. OnQuestion runs on a bounded pool of
// workers, or on the reading goroutine itself with Workers: Inline, which saves the hand-off (1 µs on one CPU, 30 µs to
// another one that is idle) and suits handlers that never wait: nothing is read meanwhile, not even Withdrawn. OnEvent,
// OnLost and OnState run on one other goroutine, one at a time, in the order in which the agent sent them; a slow OnEvent
// never delays a question, because the agent sends no more events than the window that has not been acknowledged.
//
// # Lifetimes
//
// An *Event and everything in it is valid until OnEvent returns, a *Question until OnQuestion returns: messages are
// recycled, and their strings lie in the buffer that the socket was read into. To keep something use Clone, CloneFile,
// CloneProcess or strings.Clone.
//
// # Another agent
//
// When the agent is restarted the next one may go on with the product on the same socket. The session sees to it by itself:
// handlers of questions that the old agent asked have their contexts ended and their answers dropped, events come on in
// order, losses are told by OnLost, and OnState is called if the authority is another one. AgentVersion, Budget and Granted
// are then the new agent's.
//
// # Panics
//
// A panic in a handler is printed to the standard error with its stack and ends the product: Run reads nothing more, lets
// the answers in flight be sent (for at most PanicGrace), closes the socket and returns a *PanicError. The agent then
// counts the panicked question, and those not yet handled, by the operator's on_miss at once, and restarts the product. A
// panic is never turned into an answer: nobody knows what the handler wanted to say.
package sdk
