package bpffs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// file is pinned as a file, or fails.
type file struct{ err error }

func (f file) Pin(path string) error {
	if f.err != nil {
		return f.err
	}
	return os.WriteFile(path, nil, 0o600)
}

// TestPinIsWhole: what somebody left unfinished is gone, and what fails leaves nothing.
func TestPinIsWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, Unfinished+"set", "left"), 0o700); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := Pin(dir, "set", map[string]Pinner{"a": file{}, "b": file{broken}}); !errors.Is(err, broken) {
		t.Errorf("one cannot be pinned: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := Pin(dir, "set", map[string]Pinner{"a": file{}, Name(".b"): file{}}); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(dir + "/*/*")
	if err != nil || len(all) != 2 || all[0] != dir+"/set/_b" || all[1] != dir+"/set/a" {
		t.Errorf("pinned: %v, %v", all, err)
	}
}

func TestNoBPFFS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/pins"
	if err := MakeDir(dir); !errors.Is(err, ErrNone) {
		t.Errorf("pins in a plain directory: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}
