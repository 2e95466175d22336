package manifest_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bailey/agent/product/manifest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func cases(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.toml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in %s: %v", dir, err)
	}
	return files
}

// A new case is a new file in testdata/good, with -update for its golden.
func TestParse_good(t *testing.T) {
	t.Parallel()
	for _, file := range cases(t, "good") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			m, err := manifest.Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			out, err := json.MarshalIndent(m, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(file, ".toml")+".json", string(out)+"\n")
			if len(m.Request.See) != len(m.Request.SeeWords) || len(m.Request.Decide) != len(m.Request.DecideWords) {
				t.Errorf("kinds and their words differ: %v %v", m.Request.See, m.Request.Decide)
			}
		})
	}
}

// Every file in testdata/bad must be refused with the errors beside it.
func TestParse_bad(t *testing.T) {
	t.Parallel()
	for _, file := range cases(t, "bad") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = manifest.Parse(data)
			if err == nil {
				t.Fatal("accepted")
			}
			var fault *manifest.Error
			if !errors.As(err, &fault) {
				t.Errorf("not a *manifest.Error: %T", err)
			}
			golden(t, strings.TrimSuffix(file, ".toml")+".err", err.Error()+"\n")
		})
	}
}

func TestParse_refuses_a_huge_file(t *testing.T) {
	t.Parallel()
	if _, err := manifest.Parse(make([]byte, manifest.MaxBytes+1)); err == nil {
		t.Fatal("accepted")
	}
}

func FuzzParse(f *testing.F) {
	for _, dir := range []string{"good", "bad"} {
		files, _ := filepath.Glob(filepath.Join("testdata", dir, "*.toml"))
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := manifest.Parse(data)
		if err != nil {
			if m != nil {
				t.Fatal("a manifest and an error")
			}
			return
		}
		if m.Name == "" || strings.ContainsAny(m.Name+m.Version, "/\x00\n ") {
			t.Fatalf("unsafe name %q or version %q", m.Name, m.Version)
		}
		for _, p := range append(append([]string{}, m.Run.Read...), m.Run.Connect...) {
			if filepath.Clean(p) != p || !filepath.IsAbs(p) || p == "/" {
				t.Fatalf("unsafe path %q", p)
			}
		}
		if exe := m.Run.Command[0]; !filepath.IsAbs(exe) && !filepath.IsLocal(exe) {
			t.Fatalf("command %q leaves the product folder", exe)
		}
	})
}
