package qemu

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// What a machine can end of, other than by itself. Each comes with what the console had to say.
var (
	ErrPanic     = errors.New("the guest's kernel is in trouble")
	ErrHang      = errors.New("the guest hangs")
	ErrStillborn = errors.New("the guest hung before its init started") // QEMU's doing: it is a stock kernel, alone
	ErrStarved   = errors.New("the guest was starved")
)

// Again says whether what ended a machine has nothing to do with what ran in it, so that another try is fair.
func Again(err error) bool { return errors.Is(err, ErrStarved) || errors.Is(err, ErrStillborn) }

// starved is the share of a processor below which a silent guest is not to blame, provided that it wanted as much and more.
const starved = 0.25

var (
	trouble = regexp.MustCompile(`(?m)^.*(Kernel panic|BUG:|Oops:|soft lockup|blocked for more than).*$`)
	stall   = regexp.MustCompile(`soft lockup|blocked for more than`) // a starved guest says that as well
)

// evidence is what was seen of a machine that ended or had to be ended.
type evidence struct {
	console     string // before the machine was asked where it hangs
	stopped     error  // of the context
	hung        bool   // no sign of life for too long
	lived       bool   // it gave one before
	silent      time.Duration
	got, waited float64 // of a processor, while it was silent, or all the time
}

// judge says who is to blame. full is the whole console.
func (e evidence) judge(full string) error {
	said := strings.TrimSpace(trouble.FindString(e.console))
	poor := e.got < starved && e.waited > starved
	switch {
	case said != "" && !(poor && stall.MatchString(said)):
		return fmt.Errorf("%w: %s\n%s", ErrPanic, said, Tail(full, 60))
	case poor && (e.hung || errors.Is(e.stopped, context.DeadlineExceeded)):
		return fmt.Errorf("%w: it ran for %.2f of the time and waited for a processor for %.2f", ErrStarved, e.got, e.waited)
	case e.hung:
		what := ErrHang
		if !e.lived {
			what = ErrStillborn
		}
		return fmt.Errorf("%w: no sign of life for %v, with %.2f of a processor; its console, with where it is:\n%s", what, e.silent.Round(time.Second), e.got, Tail(full, 80))
	}
	return e.stopped
}

// Tail returns the last n lines of a text.
func Tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
