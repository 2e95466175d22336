// Package boot remembers how the boots of this machine went, and says what follows from it: a change after which a boot does not end well is
// taken back, and after several such boots in a row the agent starts in safe mode. It only counts: it knows products by name and release, and
// what is to be done with them others do.
//
// A boot went well if the agent ran for a while in it with the very releases that were in force at its end, or if the agent ended in
// order, as it does at a shutdown. Anything else (a panic, a power cut, a machine that had to be switched off) is an unclean boot, and is counted
// when the agent starts in the next one. Several starts of the agent within a boot are one boot.
//
// Invariant: a record that is missing, damaged or cannot be written never keeps an agent from starting, and counts as nothing.
package boot
