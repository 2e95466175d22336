package packagedb

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeTree writes files below a new root.
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func load(t *testing.T, root string) *Snapshot {
	t.Helper()
	db, err := New(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db.Snapshot()
}

func sum(s string) string {
	m := md5.Sum([]byte(s))
	return hex.EncodeToString(m[:])
}

var dpkgFixture = map[string]string{
	"var/lib/dpkg/status": `Package: dash
Essential: yes
Status: install ok installed
Priority: required
Architecture: amd64
Version: 0.5.12-2
Description: shell
 and a line that goes on

Package: libc6
Status: install ok half-configured
Architecture: amd64
Multi-Arch: same
Version: 2.36-9
Conffiles:
 /etc/ld.so.conf.d/x86_64-linux-gnu.conf ` + sum("conf") + `
 /etc/old.conf ` + sum("old") + ` obsolete

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: diverter
Status: install ok installed
Architecture: all
Version: 1
`,
	"var/lib/dpkg/diversions":            "/usr/bin/tool\n/usr/bin/tool.distrib\ndiverter\n",
	"var/lib/dpkg/info/dash.list":        "/.\n/bin\n/bin/dash\n/bin/sh\n/usr\n/usr/bin\n/usr/bin/tool\n",
	"var/lib/dpkg/info/dash.md5sums":     sum("dash") + "  bin/dash\n" + sum("theirs") + "  usr/bin/tool\n",
	"var/lib/dpkg/info/diverter.list":    "/.\n/usr\n/usr/bin\n/usr/bin/tool\n",
	"var/lib/dpkg/info/diverter.md5sums": sum("ours") + "  usr/bin/tool\n",
	"var/lib/dpkg/info/libc6:amd64.list": "/.\n/etc\n/etc/ld.so.conf.d\n/etc/ld.so.conf.d/x86_64-linux-gnu.conf\n/lib\n/lib/x86_64-linux-gnu\n/lib/x86_64-linux-gnu/libc.so.6\n",
	"var/lib/dpkg/info/libc6:amd64.md5sums": sum("libc") + "  lib/x86_64-linux-gnu/libc.so.6\nnonsense\n" +
		"abc  lib/short\n",
	"var/lib/dpkg/info/gone.list": "/.\n/usr/bin/gone\n",
}

func TestDpkg(t *testing.T) {
	t.Parallel()
	s := load(t, writeTree(t, dpkgFixture))
	type found struct {
		Package, Digest string
		Config          bool
	}
	tests := map[string]struct {
		path string
		want *found
	}{
		"as_recorded":             {"/bin/dash", &found{"dash", sum("dash"), false}},
		"merged_usr":              {"/usr/bin/dash", &found{"dash", sum("dash"), false}},
		"merged_usr_library":      {"/usr/lib/x86_64-linux-gnu/libc.so.6", &found{"libc6", sum("libc"), false}},
		"symbolic_link_no_digest": {"/bin/sh", &found{"dash", "", false}},
		"configuration_file":      {"/etc/ld.so.conf.d/x86_64-linux-gnu.conf", &found{"libc6", sum("conf"), true}},
		"diverter_keeps_name":     {"/usr/bin/tool", &found{"diverter", sum("ours"), false}},
		"diverted_elsewhere":      {"/usr/bin/tool.distrib", &found{"dash", sum("theirs"), false}},
		"directory_is_no_file":    {"/usr/bin", nil},
		"removed_package":         {"/usr/bin/gone", nil},
		"unknown":                 {"/usr/bin/unknown", nil},
		"empty":                   {"", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got *found
			if e, ok := s.Lookup(test.path); ok {
				got = &found{e.Package.Name, hex.EncodeToString(e.Digest.Sum), e.Config}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Lookup(%q) (-want +got):\n%s", test.path, diff)
			}
		})
	}
	var packages []Package
	for p := range s.Packages() {
		packages = append(packages, *p)
	}
	want := []Package{
		{Name: "dash", Arch: "amd64", Version: "0.5.12-2", Manager: "dpkg", Essential: true, Required: true},
		{Name: "libc6", Arch: "amd64", Version: "2.36-9", Manager: "dpkg"},
		{Name: "diverter", Arch: "all", Version: "1", Manager: "dpkg"},
	}
	if diff := cmp.Diff(want, packages); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
}

func TestNoDatabase(t *testing.T) {
	t.Parallel()
	db, err := New(Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Load(context.Background()); err == nil || !strings.Contains(err.Error(), ErrNone.Error()) {
		t.Fatalf("Load of an empty root: %v", err)
	}
	if db.Snapshot() != nil {
		t.Fatal("a failed load left a snapshot")
	}
}

// TestThisMachine checks the parser against the system it runs on: nearly every program in /usr/bin is owned and has the
// recorded content.
func TestThisMachine(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/var/lib/dpkg/status"); err != nil {
		t.Skip("no dpkg here")
	}
	s := load(t, "/")
	checked, owned, same := 0, 0, 0
	entries, err := os.ReadDir("/usr/bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || checked == 200 {
			continue
		}
		checked++
		entry, ok := s.Lookup("/usr/bin/" + e.Name())
		if !ok {
			continue
		}
		owned++
		content, err := os.ReadFile("/usr/bin/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if m := md5.Sum(content); entry.Digest.Equal(m[:]) {
			same++
		}
	}
	t.Logf("%d programs: %d owned, %d with the recorded content; %d paths loaded in %v", checked, owned, same, s.Len(), s.Took)
	if owned < checked*8/10 || same < owned*95/100 {
		t.Errorf("of %d programs %d are owned and %d have the recorded content", checked, owned, same)
	}
}

func BenchmarkLoad(b *testing.B) {
	db, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := db.Load(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	s := db.Snapshot()
	b.ReportMetric(float64(s.Len()), "paths")
	b.ReportMetric(float64(cap(s.paths)+cap(s.digests)+24*cap(s.records)+4*cap(s.table)), "snapshot-bytes")
}

func BenchmarkLookup(b *testing.B) {
	db, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	if err := db.Load(b.Context()); err != nil {
		b.Fatal(err)
	}
	s := db.Snapshot()
	b.ReportAllocs()
	for b.Loop() {
		s.Lookup("/usr/bin/dash")
	}
}

func FuzzStatus(f *testing.F) {
	f.Add(dpkgFixture["var/lib/dpkg/status"])
	f.Add("Package: ../x\nStatus: a\n\n")
	f.Add("Conffiles:\n / \n")
	f.Fuzz(func(t *testing.T, text string) {
		packages, err := parseStatus(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, p := range packages {
			if strings.ContainsAny(p.Name+p.Arch, "/\x00") || p.Name == "" {
				t.Errorf("name %q arch %q would leave the directory", p.Name, p.Arch)
			}
		}
	})
}

func FuzzLists(f *testing.F) {
	f.Add(dpkgFixture["var/lib/dpkg/info/dash.list"], dpkgFixture["var/lib/dpkg/info/dash.md5sums"], dpkgFixture["var/lib/dpkg/diversions"])
	f.Add("/\n//\n/a\n/a/b", "", "x\ny\n")
	f.Fuzz(func(t *testing.T, list, sums, diversions string) {
		if _, err := parseDiversions(strings.NewReader(diversions)); err != nil {
			return
		}
		digests := parseMD5Sums([]byte(sums))
		b := newBuilder()
		pkg := b.addPackage(Package{Name: "p"})
		var want []string
		for path := range listedFiles([]byte(list)) {
			if r := b.addFile(pkg, path); r != nil {
				want = append(want, path)
				b.setDigest(r, MD5, []byte(digests[path[1:]]))
			}
		}
		s := b.finish()
		for _, path := range want {
			if e, ok := s.Lookup(path); !ok || e.Path != path {
				t.Errorf("%q was listed and is not found", path)
			}
		}
	})
}
