package corpus

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// folder makes a product folder with a directory rehearsal of some files.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, OwnDir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOwn(t *testing.T) {
	t.Parallel()
	o, err := OpenOwn(folder(t, map[string]string{
		ownList:     `{"schema":1,"tests":[{"file":"bad/eicar","ask":"open","expect":"deny"},{"file":"good","path":"/usr/bin/good","ask":"exec","expect":"allow"}]}`,
		"bad/eicar": "bad", "good": "good",
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = o.Close() }()
	if len(o.Tests) != 2 || o.Tests[0].Path != "/rehearsal/bad/eicar" || !o.Tests[0].Denied() || o.Tests[1].Path != "/usr/bin/good" || o.Tests[1].Denied() {
		t.Errorf("it is %+v", o.Tests)
	}
	f, err := o.Open(&o.Tests[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := io.ReadAll(f); err != nil || string(text) != "bad" {
		t.Errorf("%q, %v", text, err)
	}
	if none, err := OpenOwn(t.TempDir()); err != nil || len(none.Tests) != 0 || none.Close() != nil {
		t.Errorf("a product without tests has %+v, %v", none, err)
	}
}

// TestOwnRefuses: what is not exactly a list of the product's own files is none.
func TestOwnRefuses(t *testing.T) {
	t.Parallel()
	test := func(fields string) string { return `{"schema":1,"tests":[{` + fields + `}]}` }
	for name, list := range map[string]string{
		"nothing":         ``,
		"null":            `null`,
		"later_form":      `{"schema":2,"tests":[]}`,
		"other_name":      `{"schema":1,"tests":[],"more":1}`,
		"outside":         test(`"file":"../manifest.toml","ask":"open","expect":"deny"`),
		"absolute":        test(`"file":"/etc/shadow","ask":"open","expect":"deny"`),
		"directory":       test(`"file":".","ask":"open","expect":"deny"`),
		"missing":         test(`"file":"nobody","ask":"open","expect":"deny"`),
		"link":            test(`"file":"link","ask":"open","expect":"deny"`),
		"pipe":            test(`"file":"pipe","ask":"open","expect":"deny"`),
		"not_a_question":  test(`"file":"good","ask":"connect","expect":"deny"`),
		"no_expectation":  test(`"file":"good","ask":"open"`),
		"relative_path":   test(`"file":"good","path":"usr/bin","ask":"open","expect":"deny"`),
		"path_with_dots":  test(`"file":"good","path":"/usr/../bin","ask":"open","expect":"deny"`),
		"too_many":        `{"schema":1,"tests":[` + strings.TrimSuffix(strings.Repeat(`{"file":"good","ask":"open","expect":"deny"},`, maxOwnTests+1), ",") + `]}`,
		"too_long_a_list": test(`"file":"` + strings.Repeat("x", maxOwnList) + `","ask":"open","expect":"deny"`),
		"too_large":       test(`"file":"large","ask":"open","expect":"deny"`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t, map[string]string{ownList: list, "good": "good", "large": ""})
			own := filepath.Join(dir, OwnDir)
			for _, err := range []error{
				os.Symlink("/etc/passwd", filepath.Join(own, "link")), unix.Mkfifo(filepath.Join(own, "pipe"), 0o600), os.Truncate(filepath.Join(own, "large"), maxOwnFile+1),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			if o, err := OpenOwn(dir); err == nil {
				t.Errorf("it is read as %+v", o.Tests)
			}
		})
	}
}

// FuzzOwn: whatever a list says, what is read of it stays in its directory.
func FuzzOwn(f *testing.F) {
	f.Add([]byte(`{"schema":1,"tests":[{"file":"a","ask":"open","expect":"deny"}]}`))
	f.Add([]byte(`{"schema":1,"tests":[{"file":"a/b","path":"/x","ask":"exec","expect":"allow"}]}`))
	f.Add([]byte(`{"schema":1,"tests":[{"file":"../a","ask":"open","expect":"deny"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		tests, err := ParseOwn(text)
		if err != nil {
			return
		}
		if len(tests) > maxOwnTests {
			t.Errorf("%d tests", len(tests))
		}
		for _, one := range tests {
			if !filepath.IsLocal(one.File) || !filepath.IsAbs(one.Path) || filepath.Clean(one.Path) != one.Path || one.Expect != "allow" && one.Expect != "deny" {
				t.Errorf("%+v", one)
			}
		}
	})
}
