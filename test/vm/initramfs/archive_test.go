package initramfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bailey/internal/roottest"
)

// The archive must be what everybody else calls one.
func TestArchiveIsRead(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("cpio"); err != nil {
		roottest.Unavailable(t, "cpio is not installed")
	}
	name := filepath.Join(t.TempDir(), "archive")
	a, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []error{a.Text("a/b/c", "content"), a.Link("a/l", "b/c"), a.File("a/odd", "archive_test.go"), a.Close()} {
		if step != nil {
			t.Fatal(step)
		}
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("cpio", "-it", "--quiet")
	cmd.Stdin = f
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	if got := strings.Join(strings.Fields(string(out)), " "); got != "a a/b a/b/c a/l a/odd" {
		t.Errorf("cpio lists %q", got)
	}
}
