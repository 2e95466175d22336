package trust

import (
	"errors"
	"fmt"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// The classes of what can be wrong, for errors.Is.
var (
	ErrUnavailable = errors.New("not available")                  // no mirror has it, or none answers
	ErrSlow        = errors.New("too slow")                       // a mirror that sends, but hardly
	ErrSize        = errors.New("too large")                      // more bytes than were signed, or than any such file has
	ErrMalformed   = errors.New("malformed")                      // what the guard does not let through
	ErrSignature   = errors.New("not signed as it must be")       // too few valid signatures, or of other keys
	ErrExpired     = errors.New("expired")                        // also what an attacker shows who hides what is new
	ErrRollback    = errors.New("older than what was seen")       // a version below a known one
	ErrMismatch    = errors.New("not the file that was signed")   // length, digest or version differ from what names it
	ErrDelegation  = errors.New("signed for by the wrong role")   // a role that signs what is not its own
	ErrNotFound    = errors.New("not offered")                    // the repository is sound, and has no such thing
	ErrState       = errors.New("the kept state cannot be used")  // a disk's fault or an operator's, not a repository's
	ErrSpace       = errors.New("no room for it")                 // the disk would be fuller than allowed
	ErrInUse       = errors.New("another update is under way")    // the state directory is locked
	ErrInternal    = errors.New("a fault of the verifier itself") // something panicked and was caught
)

// Refusal says what was refused and why. Its class is one of the errors above.
type Refusal struct {
	What   string // a file of metadata, or a target's path
	Class  error
	Reason string

	after time.Duration // a server asks to be left alone so long
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s: %s", r.What, r.Class, r.Reason) }

func (r *Refusal) Unwrap() error { return r.Class }

// Hint says what an operator can do about it, if there is anything.
func (r *Refusal) Hint() string {
	switch {
	case errors.Is(r.Class, ErrExpired):
		return "protection goes on; check the clock of this machine, and whether the mirror is up to date"
	case errors.Is(r.Class, ErrRollback), errors.Is(r.Class, ErrMismatch):
		return "the mirror is stale or lies; try another"
	case errors.Is(r.Class, ErrSpace):
		return "make room on the disk, or allow downloads to leave less of it"
	case errors.Is(r.Class, ErrState):
		return "look at the disk; to begin anew, remove the trust directory and put the newest root there first"
	}
	return ""
}

func refuse(what string, class error, format string, args ...any) error {
	return &Refusal{What: what, Class: class, Reason: fmt.Sprintf(format, args...)}
}

// classify makes a refusal of what go-tuf said.
func classify(what string, err error) error {
	if err == nil {
		return nil
	}
	var r *Refusal
	if errors.As(err, &r) {
		return err
	}
	class := ErrMalformed
	switch {
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		class = ErrExpired
	case errors.Is(err, &metadata.ErrBadVersionNumber{}):
		class = ErrRollback
	case errors.Is(err, &metadata.ErrLengthOrHashMismatch{}):
		class = ErrMismatch
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
		class = ErrSignature
	case errors.Is(err, &metadata.ErrValue{}):
		class = ErrDelegation
	case errors.Is(err, &metadata.ErrRepository{}):
		class = ErrRollback // what a snapshot knew is gone from the next
	}
	return &Refusal{What: what, Class: class, Reason: err.Error()}
}

// guarded runs what works on bytes of strangers; a panic becomes an error.
func guarded(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = refuse(what, ErrInternal, "%v", p)
		}
	}()
	return classify(what, f())
}
