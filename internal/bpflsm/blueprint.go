package bpflsm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// Blueprint is an object as this kernel takes it.
type Blueprint struct {
	Spec    *ebpf.CollectionSpec
	Schema  string            // differs where the object, or what this kernel takes of it, does
	Missing map[string]string // the hooks that this kernel does not have, by program
}

// Variants are programs that some kernels need and others have no use for, with the number of parameters that their hook must have; 0:
// any. They are never missing.
type Variants map[string]int

// Fit leaves out of an object what the kernel has no hook for. Kernels differ in their hooks and in the parameters of some; a program that
// counts on others than the kernel's is not loaded.
func Fit(spec *ebpf.CollectionSpec, object []byte, variants Variants) (*Blueprint, error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	b := &Blueprint{Spec: spec, Missing: map[string]string{}}
	sum := sha256.New()
	sum.Write(object)
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		p := spec.Programs[name]
		parameters, variant := variants[name]
		if hasHook(kernel, p, parameters) {
			fmt.Fprintln(sum, name)
			continue
		}
		delete(spec.Programs, name)
		if !variant {
			b.Missing[name] = p.AttachTo
		}
	}
	b.Schema = hex.EncodeToString(sum.Sum(nil)[:8])
	return b, nil
}

func hasHook(kernel *btf.Spec, p *ebpf.ProgramSpec, parameters int) bool {
	if p.Type != ebpf.LSM {
		return true // tracepoints: loading says so
	}
	var f *btf.Func
	if kernel.TypeByName("bpf_lsm_"+p.AttachTo, &f) != nil {
		return false
	}
	proto, ok := f.Type.(*btf.FuncProto)
	return ok && (parameters == 0 || len(proto.Params) == parameters)
}
