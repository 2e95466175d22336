// Package unlock is the door that an operator's token opens in the guard: it decides whether a token counts here and now, opens
// the guard for as long as the token says, closes it again, and writes down all of it. It guards nothing by itself, and reads
// and makes no token: those are the packages token and operatorkey.
//
// A token counts once, on the machine that it names, between its times, when a key that the operator trusts has signed it.
//
//   - Once: the nonces of tokens that were used are on the disk, synced, before the guard opens. They are kept by number and not
//     by time: whoever sets the clock ahead, and back, must not make one forgotten.
//   - Its times: the wall clock counts, but never less than the floor. The floor is the latest time that is known to have passed:
//     the wall clock while the kernel says that it is synchronised, and when the tokens that were accepted were issued, which
//     somebody with a key has signed. It goes on with the clock that nobody can set (CLOCK_BOOTTIME) and is kept over a reboot.
//     What is open closes by CLOCK_BOOTTIME alone.
//   - Not known is refused: a record of used tokens that cannot be read, or written, opens nothing.
//
// What it does not stop: whoever can write the disk while nothing guards it can put an older record back, and whoever can set
// the clock of a machine that was off can use a token that was signed, never used, and has expired meanwhile.
//
// Invariant: the guard is never open without a line in the journal before it, or the attempt of one, that names the key.
package unlock
