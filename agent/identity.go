package agent

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bailey/agent/event"

	"golang.org/x/sys/unix"
)

// runs reports whether p runs the very file that lies at path now. stat(2) opens nothing and asks nobody.
func runs(p *event.Process, path string) bool {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return false
	}
	return st.Dev == p.Executable.Dev && st.Ino == p.Executable.Ino
}

// neverAsk knows the executables that are never made to wait. A path alone proves nothing, because in a container it may be
// anybody's file: it must be the file that this machine has there.
type neverAsk struct{ paths map[string]struct{} }

func newNeverAsk(paths []string) *neverAsk {
	n := &neverAsk{paths: make(map[string]struct{}, len(paths))}
	for _, p := range paths {
		n.paths[p] = struct{}{}
	}
	return n
}

func (n *neverAsk) has(p *event.Process) bool {
	if p.Key.PID == 1 {
		return true
	}
	_, named := n.paths[p.Executable.Path]
	return named && runs(p, p.Executable.Path)
}

// daemons knows the programs that products' answers depend on and that the operator granted. It is read on the thread that
// reads questions: one atomic load, and nothing more while no product has such a grant.
type daemons struct {
	mu       sync.Mutex
	products map[attached][]string
	granted  atomic.Pointer[[]string]
}

func newDaemons() *daemons { return &daemons{products: map[attached][]string{}} }

// set replaces the daemons of one product; none removes it.
func (d *daemons) set(product attached, paths []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.products, product)
	if len(paths) > 0 {
		d.products[product] = paths
	}
	var all []string
	for _, p := range d.products {
		all = append(all, p...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	d.granted.Store(&all)
}

// has reports whether p runs a granted daemon.
func (d *daemons) has(p *event.Process) bool {
	granted := d.granted.Load()
	if p == nil || granted == nil || len(*granted) == 0 {
		return false
	}
	return slices.Contains(*granted, p.Executable.Path) && runs(p, p.Executable.Path)
}

// rescan turns "a process entered a mount namespace that was not there before" into a look at all mounts, and into a second
// one for what is mounted just after.
type rescan struct {
	own  uint64                      // the agent's mount namespace, which the file sensor watches anyway
	seen map[uint64]event.ProcessKey // who was first seen in a namespace; touched by the process sensor's thread alone
	wake chan struct{}
}

func newRescan() *rescan {
	r := &rescan{seen: map[uint64]event.ProcessKey{}, wake: make(chan struct{}, 1)}
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/mnt", &st) == nil {
		r.own = st.Ino
	}
	return r
}

// maxNamespaces bounds what is remembered; forgetting only costs a look too many.
const maxNamespaces = 4096

// saw takes note of where p executes a program.
func (r *rescan) saw(p *event.Process) {
	ns := p.MountNamespace
	if ns == 0 || ns == r.own {
		return
	}
	if _, known := r.seen[ns]; known {
		return
	}
	if len(r.seen) >= maxNamespaces {
		clear(r.seen)
	}
	r.seen[ns] = p.Key
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// ended forgets a namespace with the process that was seen in it first: the kernel gives its number to another one.
func (r *rescan) ended(p *event.Process) {
	if r.seen[p.MountNamespace] == p.Key {
		delete(r.seen, p.MountNamespace)
	}
}

const (
	lookPause = 50 * time.Millisecond  // a storm of containers is looked at together
	lookAgain = 300 * time.Millisecond // a script in a new namespace mounts after its first exec
)

func (r *rescan) run(ctx context.Context, look func()) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
			again = time.After(lookAgain)
		case <-again:
			again = nil
		}
		look()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookPause):
		}
	}
}
