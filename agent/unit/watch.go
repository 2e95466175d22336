package unit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// Asked is something that was asked of the service manager.
type Asked struct {
	PID, UID uint32
	Start    uint64 // of the process, nanoseconds since boot
	Comm     string
	Command  string // all arguments, with spaces between them
	Verb     string
}

// Watch sees what is asked. Made by NewWatch, run once.
type Watch struct {
	name    string
	objects askedObjects
	link    link.Link
	ring    *ringbuf.Reader
}

// NewWatch begins to look for what is asked about the unit name. Its error says that this kernel does not let it.
func NewWatch(name string) (*Watch, error) {
	w := &Watch{name: name}
	if err := loadAskedObjects(&w.objects, nil); err != nil {
		return nil, fmt.Errorf("load the BPF program that sees who asks the service manager: %w", err)
	}
	var err error
	if w.link, err = link.AttachTracing(link.TracingOptions{Program: w.objects.Executed}); err != nil {
		return nil, errors.Join(fmt.Errorf("attach the BPF program that sees who asks the service manager: %w", err), w.Close())
	}
	if w.ring, err = ringbuf.NewReader(w.objects.AskedRing); err != nil {
		return nil, errors.Join(fmt.Errorf("read who asks the service manager: %w", err), w.Close())
	}
	return w, nil
}

// Close ends it.
func (w *Watch) Close() error {
	var errs []error
	if w.ring != nil {
		errs = append(errs, w.ring.Close())
	}
	if w.link != nil {
		errs = append(errs, w.link.Close())
	}
	return errors.Join(append(errs, w.objects.Close())...)
}

// Run calls tell for all that is asked, from one goroutine, until ctx ends, and closes the watch.
func (w *Watch) Run(ctx context.Context, tell func(Asked)) error {
	stop := context.AfterFunc(ctx, func() { _ = w.ring.Close() })
	defer stop()
	for {
		r, err := w.ring.Read()
		if errors.Is(err, os.ErrClosed) {
			return w.Close()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("read who asks the service manager: %w", err), w.Close())
		}
		if a, ok := decode(r.RawSample, w.name); ok {
			tell(a)
		}
	}
}

// struct asked of asked.bpf.c
const (
	argsAt   = 36
	argsSize = 512
)

// decode reads struct asked. It reports whether the unit is concerned. What was cut may be, and is looked at as far as it goes.
func decode(b []byte, name string) (Asked, bool) {
	if len(b) < argsAt+argsSize {
		return Asked{}, false
	}
	u32 := binary.NativeEndian.Uint32
	a := Asked{Start: binary.NativeEndian.Uint64(b), PID: u32(b[8:]), UID: u32(b[12:])}
	a.Comm, _, _ = strings.Cut(string(b[20:36]), "\x00")
	text := string(b[argsAt:][:min(u32(b[16:]), argsSize)])
	args := strings.Split(strings.TrimSuffix(text, "\x00"), "\x00")
	a.Command, a.Verb = strings.Join(args, " "), Asks(args, name)
	return a, a.Verb != ""
}
