package bpflsm

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Trial is what became of hooks that were tried: each is in one of the lists.
type Trial struct {
	Called  []string
	Silent  []string // programs are attached there, and the kernel did not call them when it had to
	Untried []string // nothing harmless calls them, or this process could not do it
}

// Try does, for each hook of the programs named, what the kernel must ask the hook about, and looks whether it called the programs. What it
// does changes nothing outside of a directory that it makes in dir and removes. Programs are known by p, or by their links.
func (b *Blueprint) Try(p *Parts, names []string, dir string) (t Trial, err error) {
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return t, fmt.Errorf("try the hooks: have the kernel count calls: %w", err)
	}
	defer stats.Close()
	work, err := newTrialDir(dir)
	defer os.RemoveAll(work) //nolint:errcheck // it is in the agent's own directory, and next to nothing is in it
	if err != nil {
		return t, fmt.Errorf("try the hooks: %w", err)
	}
	runtime.LockOSThread() // what a deed reads of its thread it sets again
	defer runtime.UnlockOSThread()
	for _, name := range names {
		spec := b.Spec.Programs[name]
		if spec == nil || spec.Type != ebpf.LSM {
			continue
		}
		called, tried, err := p.try(name, deeds[spec.AttachTo], work)
		if err != nil {
			return t, fmt.Errorf("try the hook %s: %w", spec.AttachTo, err)
		}
		list := &t.Untried
		switch {
		case called:
			list = &t.Called
		case tried:
			list = &t.Silent
		}
		*list = append(*list, spec.AttachTo)
	}
	for _, list := range []*[]string{&t.Called, &t.Silent, &t.Untried} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return t, nil
}

// newTrialDir makes a directory with what deeds are done to.
func newTrialDir(in string) (string, error) {
	dir, err := os.MkdirTemp(in, "hooks-")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"file", "unwanted", "misnamed"} {
		if err := os.WriteFile(dir+"/"+name, nil, 0o600); err != nil {
			return dir, err
		}
	}
	return dir, os.Mkdir(dir+"/empty", 0o700)
}

// try does a deed and says whether the program was called, and whether the deed was done.
func (p *Parts) try(name string, d deed, dir string) (called, done bool, err error) {
	prog := p.Programs[name]
	if prog == nil {
		l := p.Links[name]
		if l == nil {
			return false, false, errors.New("it is not attached")
		}
		info, err := l.Info()
		if err != nil {
			return false, false, err
		}
		if prog, err = ebpf.NewProgramFromID(info.Program); err != nil {
			return false, false, err
		}
		defer prog.Close() //nolint:errcheck // nothing was written
	}
	before, err := prog.Stats()
	if err != nil {
		return false, false, err
	}
	if d != nil {
		done = d(dir) == nil
	}
	after, err := prog.Stats()
	if err != nil {
		return false, false, err
	}
	return after.RunCount != before.RunCount, done, nil
}
