package packagedb

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bailey/internal/roottest"

	"github.com/google/go-cmp/cmp"
)

const spec = `%%global __os_install_post %%{nil}
%%global _binary_payload w0.gzdio
AutoReqProv: no
Name: bailey-tiny
Version: 1.2
Release: 3
Epoch: 4
Summary: a test
License: none
BuildArch: noarch
%%description
A test.
%%install
mkdir -p %%{buildroot}/usr/bin %%{buildroot}/etc %%{buildroot}/usr/share/many
echo tool > %%{buildroot}/usr/bin/bailey-tiny
ln -s bailey-tiny %%{buildroot}/usr/bin/bailey-link
echo conf > %%{buildroot}/etc/bailey-tiny.conf
cd %%{buildroot}/usr/share/many && seq 1 %d | awk '{ f = "file-with-a-name-" $1; print > f; close(f) }'
%%files
%%attr(755, root, root) /usr/bin/bailey-tiny
/usr/bin/bailey-link
%%config /etc/bailey-tiny.conf
%%ghost /var/log/bailey-tiny.log
/usr/share/many
`

// run runs one of rpm's tools; tests of rpm databases want the real thing that writes them.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			roottest.Unavailable(t, "needs "+p)
		}
	}
	if err := syscall.Setgid(os.Getgid()); err != nil { // the first thing that rpm does
		roottest.Unavailable(t, fmt.Sprintf("rpm needs a group that its user namespace maps: %v", err))
	}
}

// buildRPM builds the test package with the given number of extra files.
func buildRPM(t *testing.T, files int) string {
	t.Helper()
	top := t.TempDir()
	path := filepath.Join(top, "tiny.spec")
	if err := os.WriteFile(path, fmt.Appendf(nil, spec, files), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "rpmbuild", "-bb", "--quiet", "--define", "_topdir "+top, "--define", "_source_filedigest_algorithm 8",
		"--define", "_binary_filedigest_algorithm 8", path)
	built, err := filepath.Glob(filepath.Join(top, "RPMS/noarch/*.rpm"))
	if err != nil || len(built) != 1 {
		t.Fatalf("rpmbuild left %v, %v", built, err)
	}
	return built[0]
}

// installRPM makes a root whose database knows the package; Debian's rpm writes SQLite only.
func installRPM(t *testing.T, pkg string) string {
	t.Helper()
	root := t.TempDir()
	run(t, "rpm", "--root", root, "--dbpath", "/var/lib/rpm", "--initdb")
	run(t, "rpm", "--root", root, "--dbpath", "/var/lib/rpm",
		"-i", "--justdb", "--nodeps", "--noscripts", "--nosignature", pkg)
	return root
}

func checkTiny(t *testing.T, s *Snapshot, files int) {
	t.Helper()
	digest := func(content string) string {
		sum := sha256.Sum256([]byte(content))
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	want := map[string]string{
		"/usr/bin/bailey-tiny":        digest("tool\n"),
		"/usr/bin/bailey-link":        "none:",
		"/etc/bailey-tiny.conf":       digest("conf\n") + " config",
		"/usr/share/many":             "absent",
		"/var/log/bailey-tiny.log":    "absent",
		"/usr/share/many/file-with-a": "absent",
	}
	for _, i := range []int{1, files / 2, files} {
		want[fmt.Sprintf("/usr/share/many/file-with-a-name-%d", i)] = digest(fmt.Sprintf("%d\n", i))
	}
	got := make(map[string]string)
	for path := range want {
		got[path] = "absent"
		if e, ok := s.Lookup(path); ok {
			got[path] = e.Digest.String()
			if e.Config {
				got[path] += " config"
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	var packages []Package
	for p := range s.Packages() {
		packages = append(packages, *p)
	}
	wantPackages := []Package{{Name: "bailey-tiny", Arch: "noarch", Version: "4:1.2-3", Manager: "rpm"}}
	if diff := cmp.Diff(wantPackages, packages); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
}

// TestRPM reads databases written by rpm itself. The large package needs overflow pages and interior pages.
func TestRPM(t *testing.T) {
	t.Parallel()
	need(t, "rpm", "rpmbuild")
	for _, files := range []int{10, 3000} {
		pkg := buildRPM(t, files)
		t.Run(fmt.Sprintf("%d_files", files), func(t *testing.T) {
			t.Parallel()
			checkTiny(t, load(t, installRPM(t, pkg)), files)
		})
	}
}

// TestBerkeleyDB gives Berkeley DB, through Perl's binding, the header that rpm stored elsewhere: Debian's rpm only reads
// that backend.
func TestBerkeleyDB(t *testing.T) {
	t.Parallel()
	need(t, "rpm", "rpmbuild", "perl")
	const files = 2000
	f, err := os.Open(filepath.Join(installRPM(t, buildRPM(t, files)), "var/lib/rpm/rpmdb.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(t.TempDir(), "header")
	for blob, err := range sqliteHeaders(f, info.Size(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(source, blob, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root := t.TempDir()
	dir := filepath.Join(root, "var/lib/rpm")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "perl", "-MDB_File", "-MFcntl", "-e", `
my ($source, $path) = @ARGV;
local $/; open my $in, "<:raw", $source or die $!; my $header = <$in>;
tie my %h, "DB_File", $path, O_RDWR|O_CREAT, 0644, $DB_HASH or die $!;
$h{pack "V", 0} = pack "V", 2; # rpm's counter
$h{pack "V", 1} = $header;
`, source, filepath.Join(dir, "Packages"))
	checkTiny(t, load(t, root), files)
}

// TestWriteAheadLog copies a database while a writer holds it open, so that the newest package is only in the log.
func TestWriteAheadLog(t *testing.T) {
	t.Parallel()
	need(t, "rpm", "rpmbuild", "python3")
	root := installRPM(t, buildRPM(t, 300))
	dir := filepath.Join(root, "var/lib/rpm")
	copied := t.TempDir()
	to := filepath.Join(copied, "var/lib/rpm")
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	script := `
import shutil, sqlite3, sys
src, dst = sys.argv[1:]
c = sqlite3.connect(src + "/rpmdb.sqlite", isolation_level=None)
c.execute("PRAGMA journal_mode=WAL")
c.execute("PRAGMA wal_autocheckpoint=0")
c.execute("BEGIN")
row = c.execute("SELECT blob FROM Packages").fetchone()
c.execute("DELETE FROM Packages")
c.execute("COMMIT")
c.execute("PRAGMA wal_checkpoint(TRUNCATE)")
c.execute("INSERT INTO Packages(blob) VALUES (?)", row)
shutil.copy(src + "/rpmdb.sqlite", dst)
shutil.copy(src + "/rpmdb.sqlite-wal", dst)
`
	run(t, "python3", "-c", script, dir, to)
	checkTiny(t, load(t, copied), 300)
	if err := os.Remove(filepath.Join(to, "rpmdb.sqlite-wal")); err != nil {
		t.Fatal(err)
	}
	if s := load(t, copied); s.Len() != 0 {
		t.Errorf("%d paths without the log: the test proves nothing about the log", s.Len())
	}
}

// TestDamagedRPM demands an error, never part of a list.
func TestDamagedRPM(t *testing.T) {
	t.Parallel()
	need(t, "rpm", "rpmbuild")
	root := installRPM(t, buildRPM(t, 3000))
	path := filepath.Join(root, "var/lib/rpm/rpmdb.sqlite")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()*3/4/4096*4096); err != nil {
		t.Fatal(err)
	}
	db, err := New(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Load(t.Context()); err == nil && db.Snapshot().Len() < 3000 {
		t.Errorf("a truncated database gave %d paths and no error", db.Snapshot().Len())
	}
}
