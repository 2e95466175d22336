package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bailey/agent/config"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var durations = cmp.AllowUnexported(config.Duration{}, config.Size{})

// TestGood parses every good file and compares the whole effective configuration with its golden file.
func TestGood(t *testing.T) {
	t.Parallel()
	for name, data := range files(t, "good") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := config.Parse(name, data)
			if err != nil {
				t.Fatal(err)
			}
			got, err := config.Print(c)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "good", name+".golden"), got)
			again, err := config.Parse("printed", got)
			if err != nil {
				t.Fatalf("the printed configuration does not parse: %v", err)
			}
			if diff := cmp.Diff(c, again, durations); diff != "" {
				t.Errorf("printing and parsing changed it (-before +after):\n%s", diff)
			}
		})
	}
}

// TestBad parses every bad file; its golden file is the exact error, with lines.
func TestBad(t *testing.T) {
	t.Parallel()
	for name, data := range files(t, "bad") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := config.Parse(name, data)
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			var e *config.Error
			if !errors.As(err, &e) || e.Hint() == "" {
				t.Fatalf("error %T has no hint", err)
			}
			golden(t, filepath.Join("testdata", "bad", name+".golden"), []byte(err.Error()+"\n"))
		})
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agent.toml")
	if _, err := config.Load(path); err == nil || !strings.Contains(err.Error(), path+": cannot be read: no such file") {
		t.Errorf("a named file that is missing: got %v", err)
	}
	if err := os.WriteFile(path, []byte("[cache]\nenabled = false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Cache.Enabled = false
	if diff := cmp.Diff(want, c, durations); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("f", make([]byte, config.MaxSize+1))
	if err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("got %v", err)
	}
}

func TestCheckAfterFlags(t *testing.T) {
	t.Parallel()
	c := config.Default()
	if err := c.Check("flags"); err != nil {
		t.Fatalf("the defaults are refused: %v", err)
	}
	c.Watch.Paths = []string{"scratch"}
	if err := c.Check("flags"); err == nil || err.Error() != `flags: watch.paths: "scratch" is not an absolute path` {
		t.Errorf("got %v", err)
	}
}

func TestExpandScope(t *testing.T) {
	t.Parallel()
	paths := config.ExpandScope([]string{"home", "/srv", "/home"})
	if diff := cmp.Diff([]string{"/home", "/root", "/srv"}, paths); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNeverAskIsExtendedNotReplaced(t *testing.T) {
	t.Parallel()
	c := config.Default()
	builtin := len(c.NeverAskExecutables())
	c.NeverAsk.Extra = []string{"/sbin/multipathd", "/usr/bin/dbus-daemon"}
	if got := len(c.NeverAskExecutables()); got != builtin+1 {
		t.Errorf("%d executables, want %d", got, builtin+1)
	}
}

// FuzzParse feeds arbitrary files: no panic, and what is accepted is valid and survives printing.
func FuzzParse(f *testing.F) {
	for _, dir := range []string{"good", "bad"} {
		for _, data := range files(f, dir) {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("fuzz", data)
		if err != nil {
			return
		}
		if err := c.Check("fuzz"); err != nil {
			t.Fatalf("accepted an invalid configuration: %v", err)
		}
		printed, err := config.Print(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := config.Parse("printed", printed)
		if err != nil {
			t.Fatalf("printed configuration is refused: %v\n%s", err, printed)
		}
		if diff := cmp.Diff(c, again, durations); diff != "" {
			t.Fatalf("printing changed it:\n%s", diff)
		}
	})
}

func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.toml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no test files in %s: %v", dir, err)
	}
	out := make(map[string][]byte)
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(p), ".toml")] = data
	}
	return out
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("differs from %s (-want +got):\n%s", path, diff)
	}
}
