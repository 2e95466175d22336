package process

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"bailey/internal/boottime"
)

// kernel is one generation of the part in the kernel: programs, their links, the ring, the variables and the ledger of the
// ring's readers. It belongs to one goroutine but for totals and want.
type kernel struct {
	objects kernelParts
	links   []link.Link
	ring    *ring
	vars    *variables
	ledger  *ledger
	pin     *generation // nil if it is not pinned
	overlap *overlap    // what the generation before reported too; nil if nothing
}

// kernelParts are the generated programs and maps, and the map of the variables: the library's own variables would keep it
// mapped, and so in the kernel, until a garbage collection.
type kernelParts struct {
	kernelPrograms
	kernelMaps
	Variables *ebpf.Map `ebpf:".bss"`
}

func (o *kernelParts) close() error {
	return errors.Join(o.kernelPrograms.Close(), o.kernelMaps.Close(), o.Variables.Close())
}

// hooks are the programs that are attached, by the names of their pins. Exit first: a process whose start is seen has its
// end seen.
func (o *kernelParts) hooks() []hook {
	return []hook{{"exit", &o.ProcessExit}, {"exec", &o.ProcessExec}, {"fork", &o.ProcessFork}}
}

type hook struct {
	name    string
	program **ebpf.Program
}

// loadPrograms loads and attaches the BPF programs: from its return on, no fork, exec or exit is missed. With pinned
// the ledger can be pinned too.
func loadPrograms(b *blueprint, pinned bool) (*kernel, error) {
	k := &kernel{}
	if err := b.spec.LoadAndAssign(&k.objects, nil); err != nil {
		return nil, fmt.Errorf("load the BPF programs: %w", err)
	}
	if err := k.prepare(b, pinned); err != nil {
		return nil, errors.Join(err, k.close())
	}
	if err := k.attach(); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return k, nil
}

// prepare makes what user mode needs of the loaded objects.
func (k *kernel) prepare(b *blueprint, pinned bool) (err error) {
	if k.ledger = ownLedger(); pinned {
		if k.ledger, err = newLedger(boottime.Now()); err != nil {
			k.ledger = ownLedger()
			return err
		}
	}
	k.ledger.wantedAt, k.ledger.countsAt = b.wantedAt, b.countsAt
	return k.open(b.quietAt)
}

// open maps the ring and the variables.
func (k *kernel) open(quietAt uint64) (err error) {
	if k.vars, err = mapVariables(k.objects.Variables, k.ledger.wantedAt, k.ledger.countsAt, quietAt); err != nil {
		return err
	}
	if k.ring, err = newRing(k.objects.Ring.FD(), k.objects.Ring.MaxEntries()); err != nil {
		return fmt.Errorf("open the ring buffer: %w", err)
	}
	return nil
}

func (k *kernel) attach() error {
	for _, h := range k.objects.hooks() {
		l, err := link.AttachTracing(link.TracingOptions{Program: *h.program})
		if err != nil {
			return fmt.Errorf("attach %s: %w", *h.program, err)
		}
		k.links = append(k.links, l)
		if err := attached(l, *h.program); err != nil {
			return err
		}
	}
	return nil
}

// attached makes sure that a link is one of a program.
func attached(l link.Link, program *ebpf.Program) error {
	have, err := l.Info()
	if err != nil {
		return fmt.Errorf("ask the kernel about a link: %w", err)
	}
	want, err := program.Info()
	if err != nil {
		return fmt.Errorf("ask the kernel about a program: %w", err)
	}
	if id, ok := want.ID(); !ok || id != have.Program || have.Type != link.TracingType && have.Type != link.RawTracepointType {
		return fmt.Errorf("the kernel attached program %d in the place of %s", have.Program, program)
	}
	return nil
}

// close lets go of everything; what is pinned stays.
func (k *kernel) close() error {
	errs := []error{k.detach()}
	if k.ring != nil {
		errs = append(errs, k.ring.close())
	}
	if k.vars != nil {
		errs = append(errs, k.vars.close())
	}
	if k.ledger != nil {
		errs = append(errs, k.ledger.close())
	}
	return errors.Join(append(errs, k.objects.close())...)
}

// detach closes the links: the kernel detaches those that are not pinned and that no other process holds.
func (k *kernel) detach() error {
	var errs []error
	for _, l := range k.links {
		errs = append(errs, l.Close())
	}
	k.links = nil
	return errors.Join(errs...)
}

// tasks calls found with a record of every living process of the agent's pid namespace.
func (k *kernel) tasks(found func(*record)) error {
	it, err := link.AttachIter(link.IterOptions{Program: k.objects.ProcessTask})
	if err != nil {
		return fmt.Errorf("attach the task iterator: %w", err)
	}
	defer it.Close() //nolint:errcheck // its descriptor goes with it
	stream, err := it.Open()
	if err != nil {
		return fmt.Errorf("open the task iterator: %w", err)
	}
	defer stream.Close()
	data, err := io.ReadAll(stream)
	if err != nil {
		return fmt.Errorf("read the task iterator: %w", err)
	}
	var r record
	for len(data) > 0 {
		var one []byte
		if one, data, err = next(data); err != nil {
			return fmt.Errorf("read the task iterator: %w", err)
		}
		if err := r.decode(one); err != nil {
			return fmt.Errorf("read the task iterator: %w", err)
		}
		found(&r)
	}
	return nil
}

// recursions returns how often a program did not run because it ran already on that processor.
func (k *kernel) recursions() uint64 {
	var sum uint64
	for _, h := range k.objects.hooks() {
		if *h.program == nil {
			continue
		}
		if stats, err := (*h.program).Stats(); err == nil {
			sum += stats.RecursionMisses
		}
	}
	return sum
}

// lost returns the losses since the programs were loaded.
func (k *kernel) lost() losses {
	c := k.vars.totals()
	return losses{execs: c.LostExecs, forks: c.LostForks, exits: c.LostExits, scratch: c.LostScratch, recursion: k.recursions()}
}

// waiting returns the number of records in the ring, as far as they can be read.
func (k *kernel) waiting() (uint64, error) {
	var n uint64
	err := k.ring.walk(k.ring.at(), k.ring.end(), func([]byte) { n++ })
	return n, err
}

// remedy says what an operator can do about an error of loadPrograms.
func remedy(err error) string {
	switch {
	case errors.Is(err, unix.EPERM) && os.Geteuid() != 0:
		return "run the agent as root, or with CAP_BPF and CAP_PERFMON"
	case errors.Is(err, unix.EPERM):
		return "let the agent load BPF programs: CAP_BPF and CAP_PERFMON, and no kernel lockdown in confidentiality mode"
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, os.ErrNotExist):
		return "use a kernel with CONFIG_DEBUG_INFO_BTF and CONFIG_BPF_SYSCALL (5.14 or later; every current distribution's kernel has both)"
	}
	return "see the agent's log for the kernel's answer, and report it"
}
