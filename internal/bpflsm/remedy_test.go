package bpflsm

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"bailey/internal/bpffs"
)

func TestRemedy(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		ErrNotCalled: "lsm=", ErrSilent: "ftrace_enabled", bpffs.ErrNone: "mount -t bpf", os.ErrNotExist: "CONFIG_BPF_LSM", os.ErrPermission: "as root",
		os.ErrDeadlineExceeded: "report it",
	} {
		if got := Remedy(fmt.Errorf("start: %w", err)); !strings.Contains(got, want) {
			t.Errorf("%v: %s, want %q", err, got, want)
		}
	}
	if err := NotCalled("file_open"); !strings.Contains(err.Error(), "file_open") {
		t.Errorf("it does not name the hook: %v", err)
	}
}
