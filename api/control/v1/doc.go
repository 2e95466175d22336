// Package controlv1 is the control API of one agent as generated from control.proto: messages here, the Connect client and
// handler in controlv1connect. It holds no logic; the server is agent/control and package client speaks with it, as internal/cli does.
//
// Invariant: additive within v1, so an older tool keeps working with a newer agent.
package controlv1
