package bpflsm

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"bailey/internal/bpffs"
	"bailey/internal/lsm"
)

// ErrNotCalled says that programs are attached and the kernel does not call them: bpf is not an active LSM.
var ErrNotCalled = errors.New("the kernel does not call BPF LSM programs")

// ErrSilent says that some hooks are attached and the kernel does not call them, although bpf is an active LSM.
var ErrSilent = errors.New("the kernel does not call hooks that are attached")

// NotCalled says why the kernel did not call a program that is attached to a hook.
func NotCalled(hook string) error {
	list, err := os.ReadFile("/sys/kernel/security/lsm")
	if err == nil && slices.Contains(strings.Split(strings.TrimSpace(string(list)), ","), "bpf") {
		return fmt.Errorf("%w: %s", ErrSilent, hook)
	}
	return fmt.Errorf("%w: %s is attached", ErrNotCalled, hook)
}

// Remedy says what an operator can do where programs could not be put in force.
func Remedy(err error) string {
	switch {
	case errors.Is(err, ErrNotCalled):
		return lsm.Remedy("bpf")
	case errors.Is(err, ErrSilent):
		return "set kernel.ftrace_enabled to 1; if it is, use another kernel, and report which hooks this one does not call"
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, os.ErrNotExist), errors.Is(err, bpffs.ErrNone):
		return "use a kernel with CONFIG_BPF_LSM and CONFIG_DEBUG_INFO_BTF, and mount a bpffs: mount -t bpf bpf /sys/fs/bpf"
	case errors.Is(err, os.ErrPermission):
		return "run the agent as root with all capabilities, on a kernel that lets it load BPF LSM programs"
	}
	return "see the agent's log for the kernel's answer, and report it"
}
