// Package bpflsmtest is what tests of BPF LSM programs say. It loads nothing by itself.
package bpflsmtest

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"bailey/internal/bpflsm"
	"bailey/internal/roottest"
)

// NeedsVM skips a test outside the virtual machines of `make vm`.
func NeedsVM(t testing.TB) {
	t.Helper()
	roottest.RequireVM(t, "refuses things on the whole machine, and needs BPF LSM")
}

// Refused fails the test unless err is a refusal.
func Refused(t testing.TB, what string, err error) {
	t.Helper()
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("%s: %v, want a refusal", what, err)
	}
}

// Allowed fails the test if there is an error.
func Allowed(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// EachLoads loads each program alone, in the virtual machine, and shows what the kernel's verifier says against it.
func EachLoads(t *testing.T, build func() (*bpflsm.Blueprint, error)) {
	t.Helper()
	NeedsVM(t)
	b, err := build()
	if err != nil {
		t.Fatal(err)
	}
	for name := range b.Spec.Programs {
		s := b.Spec.Copy()
		for other := range s.Programs {
			if other != name {
				delete(s.Programs, other)
			}
		}
		coll, err := ebpf.NewCollection(s)
		if err == nil {
			coll.Close()
			continue
		}
		// Once more, with room for all that it says: a verifier that fails itself keeps only what fits.
		_, again := ebpf.NewCollectionWithOptions(s, ebpf.CollectionOptions{
			Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelInstruction, LogSizeStart: 32 << 20},
		})
		var said *ebpf.VerifierError
		if errors.As(again, &said) {
			err = errors.Join(err, errors.New(strings.Join(said.Log[max(0, len(said.Log)-30):], "\n")))
		}
		t.Errorf("%s: %v", name, err)
	}
}
