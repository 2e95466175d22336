package process

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// kernel is the loaded part in the kernel: programs, their links, the ring and the counters. It belongs to one goroutine
// but for counts.
type kernel struct {
	objects kernelObjects
	links   []link.Link
	ring    *ringbuf.Reader
}

// loadPrograms loads and attaches the BPF programs: from its return on, no fork, exec or exit is missed.
func loadPrograms(ringBytes uint32) (*kernel, error) {
	spec, err := loadKernel()
	if err != nil {
		return nil, fmt.Errorf("read the embedded BPF object: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return nil, fmt.Errorf("identify this process's pid namespace: %w", err)
	}
	if err := spec.Variables["agent_pidns"].Set(uint32(st.Ino)); err != nil {
		return nil, fmt.Errorf("tell the BPF programs the pid namespace: %w", err)
	}
	spec.Maps[kernelMapRing].MaxEntries = ringBytes
	k := &kernel{}
	if err := spec.LoadAndAssign(&k.objects, nil); err != nil {
		return nil, fmt.Errorf("load the BPF programs: %w", err)
	}
	if err := k.attach(); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return k, nil
}

func (k *kernel) attach() error {
	var err error
	if k.ring, err = ringbuf.NewReader(k.objects.Ring); err != nil {
		return fmt.Errorf("open the ring buffer: %w", err)
	}
	// Exit first: a process whose start is seen has its end seen.
	for _, program := range []*ebpf.Program{k.objects.ProcessExit, k.objects.ProcessExec, k.objects.ProcessFork} {
		l, err := link.AttachTracing(link.TracingOptions{Program: program})
		if err != nil {
			return fmt.Errorf("attach %s: %w", program, err)
		}
		k.links = append(k.links, l)
	}
	return nil
}

func (k *kernel) close() error {
	var errs []error
	for _, l := range k.links {
		errs = append(errs, l.Close())
	}
	if k.ring != nil {
		errs = append(errs, k.ring.Close())
	}
	return errors.Join(append(errs, k.objects.Close())...)
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

// want has the programs send records, or not. A program that runs meanwhile goes by what it saw first.
func (k *kernel) want(wanted bool) error {
	var value uint64
	if wanted {
		value = 1
	}
	if err := k.objects.Wanted.Set(value); err != nil {
		return fmt.Errorf("tell the BPF programs whether to send: %w", err)
	}
	return nil
}

// counts reads the kernel's counters.
func (k *kernel) counts() (kernelCounts, error) {
	var c kernelCounts
	if err := k.objects.Counts.Get(&c); err != nil {
		return c, fmt.Errorf("read the BPF counters: %w", err)
	}
	return c, nil
}

// recursions returns how often a program did not run because it ran already on that processor.
func (k *kernel) recursions() uint64 {
	var sum uint64
	for _, program := range []*ebpf.Program{k.objects.ProcessExit, k.objects.ProcessExec, k.objects.ProcessFork} {
		if stats, err := program.Stats(); err == nil {
			sum += stats.RecursionMisses
		}
	}
	return sum
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
