package product_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"bailey/agent/health"
	"bailey/agent/product"
)

const asks = "[request]\nsee = [\"exec\"]\ndecide = [\"exec\"]\ndeny = true\n"

func TestInstall_a_bad_folder_leaves_nothing(t *testing.T) {
	tests := []struct {
		name, want string
		spoil      func(t *testing.T, dir string)
	}{
		{"no_manifest", "no file manifest.toml", func(t *testing.T, dir string) { remove(t, dir, "manifest.toml") }},
		{"bad_manifest", "manifest.toml:1:1: title: unknown key", func(t *testing.T, dir string) { put(t, filepath.Join(dir, "manifest.toml"), "title = \"x\"\n", 0o644) }},
		{"manifest_is_a_link", "no file manifest.toml", func(t *testing.T, dir string) {
			if err := os.Rename(filepath.Join(dir, "manifest.toml"), filepath.Join(dir, "m")); err != nil {
				t.Fatal(err)
			}
			link(t, "m", filepath.Join(dir, "manifest.toml"))
		}},
		{"no_program", "./probe is no executable file", func(t *testing.T, dir string) { remove(t, dir, "probe") }},
		{"program_not_executable", "./probe is no executable file", func(t *testing.T, dir string) { put(t, filepath.Join(dir, "probe"), "x", 0o644) }},
		{"link_leads_out", "leads out of the folder", func(t *testing.T, dir string) { link(t, "../../..", filepath.Join(dir, "up")) }},
		{"absolute_link", "leads out of the folder", func(t *testing.T, dir string) { link(t, "/etc/shadow", filepath.Join(dir, "shadow")) }},
		{"link_out_by_a_detour", "leads out of the folder", func(t *testing.T, dir string) {
			link(t, ".", filepath.Join(dir, "here"))
			link(t, "here/here/../..", filepath.Join(dir, "out"))
		}},
		{"dangling_link", "leads out of the folder or nowhere", func(t *testing.T, dir string) { link(t, "missing", filepath.Join(dir, "l")) }},
		{"fifo", "neither file, folder nor symbolic link", func(t *testing.T, dir string) {
			if err := unix.Mkfifo(filepath.Join(dir, "f"), 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"too_large", "larger than 1024 MiB", func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "big"), "", 0o644)
			if err := os.Truncate(filepath.Join(dir, "big"), 1<<40); err != nil {
				t.Fatal(err)
			}
		}},
		{"refused", "operator said no", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			y := newYard(t, nil)
			dir := y.folder("bad", "1", "sleep", "")
			approve := approve
			if tt.spoil != nil {
				tt.spoil(t, dir)
			} else {
				approve = func(product.Request) error { return errors.New("operator said no") }
			}
			if _, err := y.m.Install(t.Context(), dir, approve); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if left, err := os.ReadDir(filepath.Join(y.cfg.State, "products")); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			if l := y.m.List(); len(l) != 0 {
				t.Errorf("listed: %+v", l)
			}
		})
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func TestInstall_copies_without_what_a_product_must_not_have(t *testing.T) {
	y := newYard(t, nil)
	dir := y.folder("p", "1", "sleep", "")
	put(t, filepath.Join(dir, "data", "rules"), "rule", 0o666)
	put(t, filepath.Join(dir, "root"), "x", 0o777|os.ModeSetuid|os.ModeSetgid)
	if err := os.Chown(filepath.Join(dir, "data", "rules"), 1234, 1234); err != nil {
		t.Fatal(err)
	}
	link(t, "data/rules", filepath.Join(dir, "link"))
	v, err := y.m.Install(t.Context(), dir, approve)
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{".": os.ModeDir | 0o755, "data": os.ModeDir | 0o755, "data/rules": 0o644, "root": 0o755, "probe": 0o755, "manifest.toml": 0o644, "link": 0o644} {
		st, err := os.Stat(filepath.Join(v.Folder, path))
		if err != nil || st.Mode() != mode {
			t.Errorf("%s: got %v, %v; want %v", path, st.Mode(), err, mode)
		}
		var raw unix.Stat_t
		if err := unix.Lstat(filepath.Join(v.Folder, path), &raw); err != nil || raw.Uid != 0 || raw.Gid != 0 {
			t.Errorf("%s: owner %d:%d, %v", path, raw.Uid, raw.Gid, err)
		}
	}
	again, err := y.m.Plan(t.Context(), dir)
	if err != nil || again.Release != v.Release || len(again.New) != 0 {
		t.Errorf("the same folder: %+v, %v; want release %s", again, err, v.Release)
	}
	put(t, filepath.Join(dir, "data", "rules"), "Rule", 0o666)
	if other, err := y.m.Plan(t.Context(), dir); err != nil || other.Release == v.Release {
		t.Errorf("other content has the same hash: %+v, %v", other, err)
	}
}

func TestInstall_asks_for_what_is_new_only(t *testing.T) {
	y := newYard(t, nil)
	var asked []product.Request
	ask := func(r product.Request) error { asked = append(asked, r); return nil }
	must := func(v product.View, err error) product.View {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	must(y.m.Install(t.Context(), y.folder("p", "1", "sleep", asks), ask))
	if got := asked[0].Text(); !strings.Contains(got, "be asked before every program start") || !strings.Contains(got, "deny: whatever") || !strings.Contains(got, "128MiB of memory") {
		t.Errorf("the operator read:\n%s", got)
	}
	must(y.m.Revoke(t.Context(), "p", "deny"))
	must(y.m.Grant(t.Context(), "p", "see:fork"))

	v := must(y.m.Install(t.Context(), y.folder("p", "2", "sleep", asks), ask))
	if len(asked) != 1 {
		t.Errorf("asked again for nothing new: %+v", asked[1])
	}
	if slices.Contains(v.Grants.Items(), "deny") || !slices.Contains(v.Grants.Items(), "see:fork") {
		t.Errorf("the operator's changes are gone: %v", v.Grants.Items())
	}
	more := "[request]\nsee = [\"exec\", \"exit\"]\ndeny = true\ndecide = [\"exec\"]\n[limits]\nmemory = \"256MiB\"\n"
	v = must(y.m.Install(t.Context(), y.folder("p", "3", "sleep", more), ask))
	if diff := cmp.Diff([]string{"see:exit", "memory:256MiB"}, asked[1].New); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"see:exec", "see:fork", "see:exit", "decide:exec", "live", "memory:256MiB", "pids:64", "cpu:0.5", "files:256", "state:64MiB", "log:4MiB"}, v.Grants.Items()); diff != "" {
		t.Errorf("granted (-want +got):\n%s", diff)
	}
	v = must(y.m.Install(t.Context(), y.folder("p", "4", "sleep", "[request]\nsee = [\"exec\"]\n"), ask))
	if slices.Contains(v.Grants.Items(), "see:exit") || slices.Contains(v.Grants.Items(), "decide:exec") || !slices.Contains(v.Grants.Items(), "see:fork") {
		t.Errorf("what is not asked for any more stays granted: %v", v.Grants.Items())
	}
	if left, err := os.ReadDir(filepath.Dir(v.Folder)); err != nil || len(left) != 2 {
		t.Errorf("releases kept: %v, %v; want this one and the one before", left, err)
	}
	if _, err := y.m.Install(t.Context(), y.folder("q", "1", "sleep", ""), nil); err == nil {
		t.Error("installed without approval")
	}
}

func TestNew_reads_what_was_installed(t *testing.T) {
	y := newYard(t, nil)
	want := y.install("p", "1", "sleep", asks)
	put(t, filepath.Join(y.cfg.State, "products", ".staging-x", "half"), "x", 0o644)
	y.open()
	got := y.show("p")
	if diff := cmp.Diff(want.Record, got.Record); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(y.cfg.State, "products", ".staging-x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an unfinished installation is left: %v", err)
	}
	y.run()
	y.eventually("it runs, because it is enabled", func() bool { return y.show("p").Status.State == product.Running })
}

func TestRecord_corrupt_fails_that_product_alone(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "json": "{", "other_name": `{"name":"q","release":"1-x","uid":5}`, "root": `{"name":"p","release":"1-x","uid":0}`, "path": `{"name":"p","release":"../x","uid":5}`, "grant": `{"name":"p","release":"1-x","uid":5,"grants":["fly"]}`} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t, nil)
			uid := y.install("p", "1", "sleep", "").UID
			y.install("good", "1", "sleep", "")
			record := filepath.Join(y.cfg.State, "products", "p", "record.json")
			y.run()
			y.eventually("it made its state", func() bool { return y.show("p").Status.State == product.Running })
			y.stop()
			put(t, record, text, 0o600)
			y.open()
			y.run()
			y.eventually("the other runs", func() bool { return y.show("good").Status.State == product.Running })
			v := y.show("p")
			if v.Status.State != product.Failed || v.Status.Reason == "" {
				t.Errorf("got %+v", v.Status)
			}
			if e := y.healthOf("product.p"); e.Status != health.Failed || !strings.Contains(e.Remedy, "install p again") {
				t.Errorf("health %+v", e)
			}
			if b, err := os.ReadFile(record); err != nil || string(b) != text {
				t.Errorf("the record was touched: %q, %v", b, err)
			}
			if _, err := y.m.Start(t.Context(), "p"); err == nil {
				t.Error("started")
			}
			// The remedy works, and the state's owner stays who it was.
			if v := y.install("p", "1", "sleep", ""); v.Status.State != product.Running || v.UID != uid {
				t.Errorf("installed again: %+v", v)
			}
		})
	}
}

func TestRemove_keeps_state_unless_told(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	first := y.install("p", "1", "sleep", "")
	file := filepath.Join(y.cfg.State, "products", "p", "state", "kept")
	put(t, file, "x", 0o600)
	if err := y.m.Remove(t.Context(), "p", false); err != nil {
		t.Fatal(err)
	}
	if _, err := y.m.Show("p"); !errors.Is(err, product.ErrUnknown) {
		t.Errorf("still there: %v", err)
	}
	if other := y.install("q", "1", "sleep", ""); other.UID == first.UID {
		t.Error("another product got the user that owns the kept state")
	}
	if v := y.install("p", "2", "sleep", ""); v.UID != first.UID || v.Status.State != product.Running {
		t.Errorf("got %+v", v)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	if err := y.m.Remove(t.Context(), "p", true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(y.cfg.State, "products", "p")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// TestPurgeThatIsCutShort: what cannot be removed to its end is no product any more, not even a broken one, and keeps no agent from starting.
func TestPurgeThatIsCutShort(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	y.install("p", "1", "sleep", "")
	dir := filepath.Join(y.cfg.State, "products")
	busy := filepath.Join(dir, "p", "state", "busy")
	if err := os.Mkdir(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bailey-test", busy, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	unmount := sync.OnceFunc(func() {
		mounted, err := filepath.Glob(filepath.Join(dir, "*", "state", "busy"))
		if err != nil || len(mounted) != 1 {
			t.Fatalf("mounted: %v, %v", mounted, err)
		}
		if err := unix.Unmount(mounted[0], 0); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(unmount)
	if err := y.m.Remove(t.Context(), "p", true); err == nil {
		t.Error("it says that it removed everything")
	}
	if _, err := os.Stat(filepath.Join(dir, "p")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a product is left: %v", err)
	}
	if _, err := product.New(y.cfg); err != nil {
		t.Errorf("started with what is left: %v", err)
	}
	unmount()
	if err := y.m.Remove(t.Context(), "p", true); err != nil {
		t.Errorf("once more: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
