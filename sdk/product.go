package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"bailey/api/product/v1/wire"

	"golang.org/x/sys/unix"
)

// SocketFD is the descriptor on which the agent gives a product its socket.
const SocketFD = 3

// Inline as Product.Workers runs OnQuestion on the reading thread: the lowest latency, for handlers that never wait.
const Inline = -1

// PanicGrace bounds how long the answers in flight may take after another handler panicked, and how long Run waits for
// them when its context ends.
const PanicGrace = 2 * time.Second

// Product says what a product wants to be told and asked, and what it does then.
type Product struct {
	Name string // must equal the manifest's name; empty to accept any

	Events  []Kind       // what OnEvent wants to see
	OnEvent func(*Event) // one at a time, in order; the event is valid until it returns

	Questions []Kind // Exec, Open, or both
	// OnQuestion returns the answer. Several run at once unless Workers is 1 or Inline. The context ends at the question's
	// deadline, when its answer is no longer needed, and when the product is to stop.
	OnQuestion func(context.Context, *Question) Answer

	// OnReady is called once, when grants and settings are known and before anything is asked or told. An error ends Run.
	OnReady func(*Session) error
	OnState func(*Session) // the authority changed; ask Session.Authority
	// OnRule is told of a rule that ended and was not removed by the product: expired, disabled, or not granted any more.
	OnRule func(*Session, *RuleStatus)
	OnLost func(*Session, Lost) // frames were not delivered

	MuteExecutables []string // exact paths whose events (not questions) are not wanted
	MutePaths       []string // path prefixes of targets whose events are not wanted
	MutePathsInvert bool     // only those targets are wanted

	Workers int       // how many OnQuestion run at once; 0: twice GOMAXPROCS; Inline: on the reading thread
	Stderr  io.Writer // refused subscriptions and panics are told here; default os.Stderr
}

// Lost says which of the product's own sequence numbers were not delivered, both included, and why.
type Lost struct {
	Questions bool // of the questions' count; else of the events'
	From, To  uint64
	Cause     string
}

// PanicError is what Run returns after a handler panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("a handler panicked: %v", e.Value) }

// Run connects to the agent on descriptor 3 and serves until the agent says stop (nil), ctx ends (its error), the agent
// goes away (io.ErrUnexpectedEOF) or a handler panics (*PanicError).
func Run(ctx context.Context, p Product) error {
	typ, err := unix.GetsockoptInt(SocketFD, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || typ == 0 {
		return errors.New("descriptor 3 is not a socket: start me through Bailey (bailey product install DIR); for a local test use sdk/sdktest")
	}
	return RunSocket(ctx, SocketFD, p)
}

// RunSocket is Run on another descriptor, which it takes over. sdktest uses it.
func RunSocket(ctx context.Context, fd int, p Product) error {
	if err := p.check(); err != nil {
		_ = unix.Close(fd) // it is ours, and the agent shall see that nobody serves it
		return err
	}
	sock, err := wire.NewSocket(fd)
	if err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("%w: start me through Bailey; for a local test use sdk/sdktest", err)
	}
	s := newSession(p, sock)
	return s.run(ctx)
}

// check reports mistakes of the author and fills defaults.
func (p *Product) check() error {
	for _, k := range p.Questions {
		if k != Exec && k != Open {
			return fmt.Errorf("product %s: %s cannot be asked, only exec and open can", p.Name, k)
		}
	}
	if len(p.Questions) > 0 && p.OnQuestion == nil {
		return fmt.Errorf("product %s: Questions without OnQuestion: nobody would answer", p.Name)
	}
	if len(p.Events) > 0 && p.OnEvent == nil {
		return fmt.Errorf("product %s: Events without OnEvent", p.Name)
	}
	if p.Workers == 0 {
		p.Workers = 2 * runtime.GOMAXPROCS(0)
	}
	if p.Stderr == nil {
		p.Stderr = os.Stderr
	}
	return nil
}
