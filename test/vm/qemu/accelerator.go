package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bailey/test/vm/initramfs"
	"bailey/test/vm/kernel"
)

// patience is how long a machine may take with KVM that takes two seconds without.
const patience = 10 * time.Second

// Accelerator returns "kvm" where a machine boots with it, and "tcg" elsewhere: there are hosts with a /dev/kvm on which machines
// hang. It remembers, in the cache dir, until the host boots again.
func Accelerator(ctx context.Context, dir, init string, k *kernel.Kernel) (string, error) {
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return "tcg", nil
	}
	kvm.Close()
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("tell this boot from others: %w", err)
	}
	known := filepath.Join(dir, "kvm")
	if was, answer, _ := strings.Cut(read(dir, "kvm"), " "); was == strings.TrimSpace(string(id)) {
		return answer, nil
	}
	answer := "tcg"
	if works(ctx, init, k) {
		answer = "kvm"
	}
	return answer, os.WriteFile(known, []byte(strings.TrimSpace(string(id))+" "+answer), 0o644)
}

// works boots a machine that ends at once.
func works(ctx context.Context, init string, k *kernel.Kernel) bool {
	dir, err := os.MkdirTemp("", "bailey-kvm-")
	if err != nil {
		return false
	}
	defer func() { _ = os.RemoveAll(dir) }()
	initrd := filepath.Join(dir, "initramfs")
	a, err := initramfs.Guest(ctx, initrd, init, k)
	if err != nil || a.Close() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m, err := Start(ctx, Config{Kernel: k, Initrd: initrd, Dir: dir, Accelerator: "kvm", LSM: "capability", Memory: 512, Silence: patience})
	if err != nil {
		return false
	}
	end := m.Wait()
	return end.Err == nil && strings.Contains(end.Report, "VM-EXIT ")
}
