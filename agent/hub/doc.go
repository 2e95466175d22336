// Package hub knows who gets what: it gives every event its number, fans events out to products and taps, sends questions
// to their voters, and accounts for everything that was not delivered. It decides no question (the verdict engine does)
// and knows no wire format: encoding and sending are the transport's.
//
// Invariant: what a product receives and what it is told it lost are together every number of its stream, in order.
//
// # Pressure
//
// Events never block anybody: a product has a bounded queue and a window of events that it has not acknowledged. When the
// queue is three quarters full, only exec, fork and exit (which keep a process tree true) are still taken; when it is
// full, they are dropped as well. A dropped event keeps its number, and Lost is sent in its place. A question that does
// not fit into the socket is a miss at once; its number is announced as lost on the question stream.
//
// # Order of locks
//
// order (one change of members or subscriptions at a time, with the hooks and the invalidation that follow) before publish
// (numbering events and putting them into queues) before a client's own. The question path reads one atomic snapshot and
// takes one lock, that of the client it sends to. No lock is held while events go to a connection.
//
// # Wiring
//
// The hub is the verdict engine's electorate as it is, and the engine the hub's Verdicts; neither knows the other's
// package:
//
//	h, err := hub.New(hub.Config{Encoder: codec, Now: boottime.Now, OnSubscriptions: sensors.Set, Log: log, Health: reg})
//	engine, err := verdict.New(verdict.Config{
//		Electorate: h, Now: boottime.Now, Critical: critical.Has, FlushKernel: files.FlushCache, Health: reg,
//		Outcome: h.Publish, Wanted: func() bool { return h.Wants(event.Verdict) }, OnAuthority: h.SetDegraded,
//	})
//	h.Bind(engine)
//	go engine.Run(ctx)
//	// file sensor: Config{Ask: engine.Ask, Emit: h.Publish}; on close_write: engine.Forget(dev, ino)
//	// transport: client, err := h.Attach(member, conn); conn.Run(handler of client's methods); h.Detach(client)
package hub
