// Package productv1 is version 1 of the protocol between the agent and a product: the frames' header, and the payloads that
// are generated from product.proto. It moves no bytes; package wire does. docs/protocol.md says how a conversation goes.
//
// Invariant: within version 1 frames, kinds and fields are only added; what is unknown is ignored or answered with
// Unsupported.
package productv1
