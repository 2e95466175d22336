package bpflsm

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"bailey/internal/bpffs"
)

// The names of pins, before those of what is pinned.
const (
	mapPrefix     = "map_"
	programPrefix = "prog_"
	linkPrefix    = "link_"
)

// MapPin is the name of a map's pin.
func MapPin(name string) string { return mapPrefix + bpffs.Name(name) }

// LinkPin is the name of the pin of a program's link.
func LinkPin(program string) string { return linkPrefix + program }

// Parts is what an object is inside the kernel.
type Parts struct {
	Maps     map[string]*ebpf.Map
	Programs map[string]*ebpf.Program
	Links    map[string]link.Link // of the programs that are attached

	pages [][]byte
}

func newParts() *Parts {
	return &Parts{Maps: map[string]*ebpf.Map{}, Programs: map[string]*ebpf.Program{}, Links: map[string]link.Link{}}
}

// Load loads the maps and programs, and attaches none.
func (b *Blueprint) Load() (*Parts, error) {
	coll, err := ebpf.NewCollection(b.Spec)
	if err != nil {
		return nil, fmt.Errorf("load the BPF programs: %w", err)
	}
	defer coll.Close() // closes what is left in it
	p := newParts()
	for name := range b.Spec.Maps {
		if m := coll.DetachMap(name); m != nil {
			p.Maps[name] = m
		}
	}
	for name := range b.Spec.Programs {
		p.Programs[name] = coll.DetachProgram(name)
	}
	return p, nil
}

// Open opens what Pin pinned in dir: all maps, and what is there of programs and links.
func (b *Blueprint) Open(dir string) (*Parts, error) {
	p := newParts()
	if err := p.open(b, dir); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Parts) open(b *Blueprint, dir string) (err error) {
	for name := range b.Spec.Maps {
		if p.Maps[name], err = ebpf.LoadPinnedMap(filepath.Join(dir, MapPin(name)), nil); err != nil {
			return fmt.Errorf("open the map %s: %w", name, err)
		}
	}
	for name := range b.Spec.Programs {
		if prog, err := ebpf.LoadPinnedProgram(filepath.Join(dir, programPrefix+name), nil); err == nil {
			p.Programs[name] = prog
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("open the program %s: %w", name, err)
		}
		if l, err := link.LoadPinnedLink(filepath.Join(dir, LinkPin(name)), nil); err == nil {
			p.Links[name] = l
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("open the link of %s: %w", name, err)
		}
	}
	return nil
}

// Pin pins all that there is, in dir/name, or nothing.
func (p *Parts) Pin(dir, name string) error {
	all := map[string]bpffs.Pinner{}
	for name, m := range p.Maps {
		all[MapPin(name)] = m
	}
	for name, prog := range p.Programs {
		all[programPrefix+name] = prog
	}
	for name, l := range p.Links {
		all[LinkPin(name)] = l
	}
	return bpffs.Pin(dir, name, all)
}

// Attach attaches a program.
func (p *Parts) Attach(name string) error {
	l, err := attach(p.Programs[name])
	if err != nil {
		return fmt.Errorf("attach %s: %w", name, err)
	}
	p.Links[name] = l
	return nil
}

func attach(p *ebpf.Program) (link.Link, error) {
	if p.Type() == ebpf.LSM {
		return link.AttachLSM(link.LSMOptions{Program: p})
	}
	return link.AttachTracing(link.TracingOptions{Program: p})
}

// AttachAll attaches all programs, and lets go of them: their links hold them.
func (p *Parts) AttachAll() error {
	for _, name := range slices.Sorted(maps.Keys(p.Programs)) {
		if err := p.Attach(name); err != nil {
			return err
		}
	}
	var errs []error
	for name, prog := range p.Programs {
		errs = append(errs, prog.Close())
		delete(p.Programs, name)
	}
	return errors.Join(errs...)
}

// Share maps the object's zeroed variable of that name, which is a T, until p is closed. Its fields are stored one by one and in force at
// once.
func Share[T any](p *Parts, b *Blueprint, name string) (*T, error) {
	v := b.Spec.Variables[name]
	if v == nil {
		return nil, fmt.Errorf("map the variables: the object has no variable %s", name)
	}
	m, size := p.Maps[v.SectionName], uint32(unsafe.Sizeof(*new(T)))
	if m == nil || m.ValueSize() < v.Offset+size {
		return nil, fmt.Errorf("map the variables: the object has none of %d bytes", v.Offset+size)
	}
	page, err := unix.Mmap(m.FD(), 0, int(v.Offset+size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the variables: %w", err)
	}
	p.pages = append(p.pages, page)
	return (*T)(unsafe.Pointer(&page[v.Offset])), nil
}

// Store puts values into an array of a shared variable, one by one, and 0 after the last.
func Store(into, values []uint32) {
	for i := range into {
		var v uint32
		if i < len(values) {
			v = values[i]
		}
		atomic.StoreUint32(&into[i], v)
	}
}

// Close lets go of everything. What is pinned stays.
func (p *Parts) Close() error {
	var errs []error
	for _, l := range p.Links {
		errs = append(errs, l.Close())
	}
	for _, prog := range p.Programs {
		errs = append(errs, prog.Close())
	}
	for _, m := range p.Maps {
		errs = append(errs, m.Close())
	}
	for _, page := range p.pages {
		errs = append(errs, unix.Munmap(page))
	}
	return errors.Join(errs...)
}
