package bailey_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bailey/internal/roottest"
)

// TestGeneratedCodeIsCurrent generates everything again in a copy of the tree and compares. The toolchain is Debian 12's
// protoc and clang-14 with the plugins pinned in go.mod.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	if testing.Short() {
		t.Skip("generates all code again")
	}
	for _, tool := range []string{"protoc", "clang-14", "llvm-strip-14"} {
		if _, err := exec.LookPath(tool); err != nil {
			roottest.Unavailable(t, tool+" is missing: run `sh tools/setup.sh test`")
		}
	}
	copied := t.TempDir()
	files := repositoryFiles(t)
	for _, name := range files {
		copyInto(t, copied, name)
	}
	generate := exec.Command("sh", "tools/generate.sh")
	generate.Dir = copied
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("tools/generate.sh: %v\n%s", err, out)
	}
	for _, name := range files {
		compare(t, copied, name)
	}
	err := filepath.WalkDir(copied, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(copied, name)
		if _, missing := os.Stat(rel); missing != nil {
			t.Errorf("%s is generated and not committed: run `make generate`", rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func copyInto(t *testing.T, root, name string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func compare(t *testing.T, root, name string) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Errorf("%s is gone after generating: %v", name, err)
		return
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the generators make of its source (line %d): run `make generate`", name, firstDifference(got, want))
	}
}

func firstDifference(a, b []byte) int {
	x, y := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return i + 1
		}
	}
	return min(len(x), len(y)) + 1
}
