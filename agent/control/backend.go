package control

import (
	"context"

	"bailey/agent/event"
	controlv1 "bailey/api/control/v1"
)

// The methods of these interfaces are called from many goroutines at once. They return a *Fault, or an error that wraps
// one, where the operator did something that cannot be; any other error is shown as a failure of the agent. An error with
// a method Hint() string has its hint shown too.

// Agent is what the server asks about the agent as a whole.
type Agent interface {
	Status(ctx context.Context) (*controlv1.StatusResponse, error)
	Health(ctx context.Context) (*controlv1.HealthResponse, error)
	// Tap starts a tap of the given kinds. The tap drops, and counts, what its reader is too slow for.
	Tap(kinds event.KindSet) (Tap, error)
	// Ancestors returns the known ancestors of a process, its parent first.
	Ancestors(key event.ProcessKey) []*event.Process
	// Upgrade has the program at path started as the next agent, and returns when this one begins to hand over.
	Upgrade(ctx context.Context, path string) error
	// BootGood forgets unclean boots and leaves safe mode, or returns a Fault of class Refused where the boot itself was meant to be safe.
	BootGood(ctx context.Context) (*controlv1.Boot, error)
}

// Tap is a bounded queue of events for one reader; its methods are called by one goroutine.
type Tap interface {
	// Next waits for the next event; lost is the number of events dropped since the one before. Its error is ctx's, or io.EOF
	// when there will be no more.
	Next(ctx context.Context) (e *event.Event, lost uint64, err error)
	Close()
}

// Products manages the machine's products. Methods that take a name return a Fault of class NotFound for an unknown one.
type Products interface {
	// Plan reads the folder at path and says what installing it would grant; it changes nothing.
	Plan(ctx context.Context, path string) (*controlv1.ProductPlanResponse, error)
	// Install installs the folder, or returns a Fault of class Refused when its plan's hash is no longer the approved one.
	Install(ctx context.Context, path, approved string) (*controlv1.Product, error)
	// Rehearse tries the folder without installing it, if its plan's hash is still the approved one, and calls say now and then. It
	// takes about a minute. A Fault of class Refused says that another release is being tried.
	Rehearse(ctx context.Context, path, approved string, say func(*controlv1.RehearsalProgress) error) (*controlv1.Rehearsal, error)
	List(ctx context.Context) ([]*controlv1.Product, error)
	Show(ctx context.Context, name string) (*controlv1.Product, error)
	Start(ctx context.Context, name string) (*controlv1.Product, error)
	Stop(ctx context.Context, name string) (*controlv1.Product, error)
	Restart(ctx context.Context, name string) (*controlv1.Product, error)
	Remove(ctx context.Context, name string) error
	Grant(ctx context.Context, name string, grants []string) (*controlv1.Product, error)
	Revoke(ctx context.Context, name string, grants []string) (*controlv1.Product, error)
	Set(ctx context.Context, name string, settings map[string]string) (*controlv1.Product, error)
	// Logs calls write with the product's kept output and, if follow, with what it writes until ctx is done or write fails.
	Logs(ctx context.Context, name string, follow bool, write func([]byte) error) error
}

// Updates brings releases in.
type Updates interface {
	List(ctx context.Context) (*controlv1.UpdateListResponse, error)
	// Check has the mirrors looked at now.
	Check(ctx context.Context) error
	// Set does what the operator wants of a stream, or returns a Fault: Invalid, NotFound or Refused.
	Set(ctx context.Context, r *controlv1.UpdateSetRequest) (*controlv1.UpdateStream, error)
	// Plan says what would come of a stream, or returns a Fault: Invalid, NotFound or Refused.
	Plan(ctx context.Context, stream string, force bool) (*controlv1.UpdatePlanResponse, error)
	// History returns the newest moves, at most limit.
	History(ctx context.Context, limit int) ([]*controlv1.UpdateMove, error)
}

// Rules are products' standing denies in the kernel.
type Rules interface {
	// List returns them by product and id.
	List(ctx context.Context) ([]*controlv1.Rule, error)
}

// Brake is what keeps products from denying too much.
type Brake interface {
	// List returns the braked products.
	List(ctx context.Context) ([]*controlv1.BrakedProduct, error)
	// Release gives a product's denies their weight back, or returns a Fault of class Refused when it is not braked.
	Release(ctx context.Context, name string) error
}

// Door is what operators' tokens open in the guard.
type Door interface {
	// Unlock allows what the token says, or returns an error with a hint that says why not.
	Unlock(ctx context.Context, token string) (*controlv1.Guard, error)
	// Lock allows nothing any more.
	Lock(ctx context.Context) (*controlv1.Guard, error)
}

// Cache is the verdict cache.
type Cache interface {
	Show(ctx context.Context) (*controlv1.Cache, error)
	// Clear forgets every verdict, the kernel's ignore marks included, and returns how many the agent had.
	Clear(ctx context.Context) (entries uint64, err error)
}
