package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"bailey/test/vm/bench/figure"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// count is what the kernel counted of one program so far.
type count struct {
	name, kind string
	calls      uint64
	ns         uint64
}

// counts returns those of every program in the kernel.
func counts() (map[ebpf.ProgramID]count, error) {
	out := map[ebpf.ProgramID]count{}
	for id := ebpf.ProgramID(0); ; {
		var err error
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, os.ErrNotExist) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("list the programs: %w", err)
		}
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // it went meanwhile
		} else if err != nil {
			return nil, fmt.Errorf("open a program: %w", err)
		}
		info, err := p.Info()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("ask about a program: %w", err), p.Close())
		}
		stats, err := p.Stats()
		if err = errors.Join(err, p.Close()); err != nil {
			return nil, fmt.Errorf("ask what a program did: %w", err)
		}
		out[id] = count{name: info.Name, kind: strings.ToLower(p.Type().String()), calls: stats.RunCount, ns: uint64(stats.Runtime.Nanoseconds())}
	}
}

// during returns what each program did while f ran.
func during(f func() error) (map[ebpf.ProgramID]count, error) {
	before, err := counts()
	if err != nil {
		return nil, err
	}
	if err := f(); err != nil {
		return nil, err
	}
	after, err := counts()
	for id, c := range after {
		c.calls -= before[id].calls
		c.ns -= before[id].ns
		after[id] = c
	}
	return after, err
}

// hooks does one batch of each operation while the kernel counts what its BPF programs do.
func (w *work) hooks() (map[string][]figure.Hook, error) {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, fmt.Errorf("have the kernel count: %w", err)
	}
	defer stats.Close()
	counting, err := during(func() error { return nil })
	if err != nil {
		return nil, err
	}
	out := map[string][]figure.Hook{}
	for _, op := range w.operations() {
		did, err := during(func() error { return op.batch(op.n) })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op.name, err)
		}
		for id, c := range did {
			if own := counting[id]; c.calls > own.calls {
				c.calls, c.ns = c.calls-own.calls, c.ns-own.ns
			} else {
				continue
			}
			// What runs less than once in ten operations is not the operation's.
			if c.calls*10 >= uint64(op.n) {
				out[op.name] = append(out[op.name], figure.Hook{
					Program: c.name, Type: c.kind, Calls: float64(c.calls) / float64(op.n), Nanoseconds: float64(c.ns) / float64(c.calls),
				})
			}
		}
		slices.SortFunc(out[op.name], func(a, b figure.Hook) int { return strings.Compare(a.Program, b.Program) })
	}
	return out, nil
}
