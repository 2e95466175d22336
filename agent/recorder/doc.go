// Package recorder is the flight recorder: the most recent events, and questions with their answers, on disk within a fixed
// bound, for the operator (`bailey history`) and for rehearsals of new releases. It is no journal: what is old is removed, and
// checksums find damage, not forgery. It makes no sensor produce anything: it keeps what others asked for.
//
// Invariant: the recorder makes nobody wait and fails nothing. What it could not keep is counted, and is a record itself.
//
// # On disk
//
// A directory of segments, numbered upwards. A segment is a header and blocks; a block is a header and a zstd frame of
// records. Each header and each frame has a CRC-32C. A block is written whole by one write(2), about once a second, and never
// changed. So SIGKILL costs what was not yet written, and damage costs the blocks it hits: a reader goes on at the next block.
// Block headers begin with 8 random bytes of their segment: nobody who can only choose what is recorded (a path, an argument)
// can make a reader take it for a block.
//
// Times in records are nanoseconds since boot. Each block says which boot, and what the wall clock made of that boot's
// beginning when the block was written; the newest word about a boot counts for all of it, so that a clock that jumps does not
// tear a boot apart.
package recorder
