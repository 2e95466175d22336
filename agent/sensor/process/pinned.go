package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// The names of a generation's pins that are not those of hooks.
const (
	pinRing      = "ring"
	pinCells     = "cells"
	pinVariables = "variables"
	pinLedger    = "ledger"
	pinTask      = "task"
	pinLinkAfter = "_link"
)

var errPin = errors.New("pin is not what its name says")

// pin pins a generation that was just loaded: all of it, or nothing.
func (p *pins) pin(k *kernel, schema string) error {
	g := &generation{name: unfinishedPrefix + strconv.FormatUint(k.ledger.created, 16), schema: schema, created: k.ledger.created}
	path := filepath.Join(p.dir, g.name)
	if err := os.Mkdir(path, 0o700); err != nil {
		return fmt.Errorf("make a directory for pins: %w", err)
	}
	err := p.open(g)
	if err == nil {
		err = k.pinAll(path)
	}
	final := generationName(schema, k.ledger.created)
	if err == nil {
		err = os.Rename(path, filepath.Join(p.dir, final))
	}
	if err != nil {
		g.close()
		return errors.Join(fmt.Errorf("pin the BPF programs: %w", err), os.RemoveAll(path))
	}
	g.name, k.pin = final, g
	return nil
}

func (k *kernel) pinAll(path string) error {
	o := &k.objects
	for name, m := range map[string]*ebpf.Map{pinRing: o.Ring, pinCells: o.Cells, pinVariables: o.Variables, pinLedger: k.ledger.table} {
		if err := m.Pin(filepath.Join(path, name)); err != nil {
			return fmt.Errorf("pin %s: %w", name, err)
		}
	}
	if err := o.ProcessTask.Pin(filepath.Join(path, pinTask)); err != nil {
		return fmt.Errorf("pin %s: %w", pinTask, err)
	}
	for i, h := range o.hooks() {
		if err := (*h.program).Pin(filepath.Join(path, h.name)); err != nil {
			return fmt.Errorf("pin %s: %w", h.name, err)
		}
		if err := k.links[i].Pin(filepath.Join(path, h.name+pinLinkAfter)); err != nil {
			return fmt.Errorf("pin the link of %s: %w", h.name, err)
		}
	}
	return nil
}

// adopt opens a generation that has this version's schema, and makes sure that it is what its names say: programs that use
// these maps, links to these programs.
func (p *pins) adopt(g generation, b *blueprint) (*kernel, error) {
	k, err := p.openRing(g)
	if err != nil {
		return nil, err
	}
	if err := k.adopt(filepath.Join(p.dir, g.name), b); err != nil {
		return nil, errors.Join(err, k.letGo())
	}
	return k, nil
}

func (k *kernel) adopt(path string, b *blueprint) (err error) {
	o := &k.objects
	// They lie where this version's object has them: the bytes of the object are in the schema.
	if k.ledger.wantedAt != b.wantedAt || k.ledger.countsAt != b.countsAt || o.Variables.ValueSize() != b.spec.Maps[variablesSection].ValueSize {
		return fmt.Errorf("%w: the variables lie elsewhere", errPin)
	}
	k.vars.quiet = k.vars.at(b.quietAt)
	if err := b.spec.Maps[kernelMapRing].Compatible(o.Ring); err != nil {
		return fmt.Errorf("adopt the ring: %w", err)
	}
	if o.Cells, err = ebpf.LoadPinnedMap(filepath.Join(path, pinCells), nil); err != nil {
		return fmt.Errorf("adopt the cells: %w", err)
	}
	if err := b.spec.Maps[kernelMapCells].Compatible(o.Cells); err != nil {
		return fmt.Errorf("adopt the cells: %w", err)
	}
	if o.ProcessTask, err = ebpf.LoadPinnedProgram(filepath.Join(path, pinTask), nil); err != nil {
		return fmt.Errorf("adopt the task iterator: %w", err)
	}
	if err := uses(o.ProcessTask, kernelProgProcessTask, o.Cells); err != nil {
		return err
	}
	names := []string{kernelProgProcessExit, kernelProgProcessExec, kernelProgProcessFork}
	for i, h := range o.hooks() {
		if *h.program, err = ebpf.LoadPinnedProgram(filepath.Join(path, h.name), nil); err != nil {
			return fmt.Errorf("adopt the program of %s: %w", h.name, err)
		}
		if err := uses(*h.program, names[i], o.Ring, o.Variables); err != nil {
			return err
		}
		l, err := link.LoadPinnedLink(filepath.Join(path, h.name+pinLinkAfter), nil)
		if err != nil {
			return fmt.Errorf("adopt the link of %s: %w", h.name, err)
		}
		k.links = append(k.links, l)
		if err := attached(l, *h.program); err != nil {
			return err
		}
	}
	return nil
}

// uses makes sure that a program has a name and works on maps.
func uses(program *ebpf.Program, name string, wanted ...*ebpf.Map) error {
	info, err := program.Info()
	if err != nil {
		return fmt.Errorf("ask the kernel about a program: %w", err)
	}
	if cut := name[:min(len(name), 15)]; info.Name != cut { // BPF_OBJ_NAME_LEN with its zero
		return fmt.Errorf("%w: program %s is in the place of %s", errPin, info.Name, name)
	}
	ids, ok := info.MapIDs()
	for _, m := range wanted {
		about, err := m.Info()
		if err != nil {
			return fmt.Errorf("ask the kernel about a map: %w", err)
		}
		if id, known := about.ID(); !ok || !known || !slices.Contains(ids, id) {
			return fmt.Errorf("%w: program %s does not use the map beside it", errPin, name)
		}
	}
	return nil
}

// openRing opens of a generation what is needed to empty its ring, whatever version made it.
func (p *pins) openRing(g generation) (*kernel, error) {
	if err := p.open(&g); err != nil {
		return nil, err
	}
	k := &kernel{pin: &g}
	if err := k.openRing(filepath.Join(p.dir, g.name)); err != nil {
		return nil, errors.Join(err, k.letGo())
	}
	return k, nil
}

func (k *kernel) openRing(path string) error {
	table, err := ebpf.LoadPinnedMap(filepath.Join(path, pinLedger), nil)
	if err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	if k.ledger, err = mapLedger(table); err != nil {
		return err
	}
	if err := k.ledger.valid(); err != nil {
		return err
	}
	if k.ledger.created != k.pin.created {
		return fmt.Errorf("%w: the ledger is another generation's", errPin)
	}
	for name, into := range map[string]**ebpf.Map{pinRing: &k.objects.Ring, pinVariables: &k.objects.Variables} {
		if *into, err = ebpf.LoadPinnedMap(filepath.Join(path, name), nil); err != nil {
			return fmt.Errorf("open %s: %w", name, err)
		}
	}
	if k.objects.Ring.Type() != ebpf.RingBuf || k.objects.Variables.Type() != ebpf.Array {
		return fmt.Errorf("%w: ring or variables", errPin)
	}
	if err := k.open(k.ledger.wantedAt); err != nil {
		return err
	}
	_, err = k.waiting()
	return err
}

// openPrograms opens a replaced generation's programs, as far as they are still pinned: they count their own losses.
func (k *kernel) openPrograms(dir string) {
	for _, h := range k.objects.hooks() {
		if program, err := ebpf.LoadPinnedProgram(filepath.Join(dir, k.pin.name, h.name), nil); err == nil {
			*h.program = program
		}
	}
}

// unlink removes the pins of a replaced generation's links: the kernel detaches them, unless the agent before still lives
// and holds them.
func (k *kernel) unlink(dir string) error {
	var errs []error
	for _, h := range k.objects.hooks() {
		if err := os.Remove(filepath.Join(dir, k.pin.name, h.name+pinLinkAfter)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("detach a replaced program: %w", err))
		}
	}
	return errors.Join(append(errs, k.detach())...)
}

// letGo closes a generation and leaves its pins.
func (k *kernel) letGo() error {
	err := k.close()
	k.pin.close()
	return err
}
