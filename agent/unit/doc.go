// Package unit is the agent's own unit of systemd: who asks the service manager to end or change it, and whether the service manager
// obeys. It manages no other unit, and it does not refuse: systemd does (RefuseManualStop=), and the guard keeps the unit as it is.
//
// What is asked is seen where programs that speak to systemd are executed, by their arguments: root's systemctl reaches systemd by a
// socket of its own, and systemd tells nobody what it refused. A program that speaks to systemd in another way is refused as well, and
// not seen.
//
// Invariant: whatever happens here, the agent goes on.
package unit
