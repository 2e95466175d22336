package inforce

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// program puts a program under its name in a state directory and returns the name.
func program(t *testing.T, state, version, text string) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "program")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	digest, err := Digest(f)
	if err != nil {
		t.Fatal(err)
	}
	name := Name(version, digest)
	if err := Keep(state, name, f); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestChoose(t *testing.T) {
	t.Parallel()
	const own, next, last = "1.0", "1.2", "1.1" // versions of the package, of what is in force, and of what was before it
	for _, c := range []struct {
		name   string
		record Record // Name and Previous are versions here
		own    string // default 1.0
		spoil  func(state, path string) error
		want   string // version; empty: the keeper's own
		why    string // in the error
		after  Record // as record
	}{
		{name: "no_record"},
		{name: "proven", record: Record{Name: next, Previous: last, Proven: true}, want: next, after: Record{Name: next, Previous: last, Proven: true}},
		{name: "proven_and_unclean", record: Record{Name: next, Proven: true}, want: next, after: Record{Name: next, Proven: true}},
		{name: "not_proven_told_to_end", record: Record{Name: next, Previous: last, Ended: true}, want: next, after: Record{Name: next, Previous: last}},
		{
			name: "not_proven_and_unclean", record: Record{Name: next, Previous: last}, want: last, why: "not proven",
			after: Record{Name: last, Proven: true, Gone: next, Why: errUnclean.Error()},
		},
		{
			name: "not_proven_and_unclean_with_an_earlier_one", record: Record{Name: next, Previous: last, Earlier: own}, want: last, why: "not proven",
			after: Record{Name: last, Previous: own, Proven: true, Gone: next, Why: errUnclean.Error()},
		},
		{
			name: "not_proven_and_unclean_after_the_package", record: Record{Name: next, Previous: own}, why: "not proven",
			after: Record{Name: own, Proven: true, Gone: next, Why: errUnclean.Error()},
		},
		{name: "not_proven_and_unclean_without_one_before", record: Record{Name: next}, why: "not proven", after: Record{Proven: true, Gone: next, Why: errUnclean.Error()}},
		{name: "newer_package", own: "1.3", record: Record{Name: next, Previous: last, Proven: true}},
		{name: "newer_package_with_v", own: "v1.10", record: Record{Name: next, Previous: last}},
		{name: "same_package", own: "v1.2", record: Record{Name: next, Proven: true}, after: Record{Name: next, Proven: true}},
		{name: "package_of_no_version", own: "devel", record: Record{Name: next, Proven: true}, want: next, after: Record{Name: next, Proven: true}},
		{
			name: "program_is_gone", record: Record{Name: next, Proven: true}, spoil: func(_, path string) error { return os.Remove(path) },
			why: "no such file", after: Record{Name: next, Proven: true},
		},
		{
			name: "others_can_write_it", record: Record{Name: next, Proven: true}, spoil: func(_, path string) error { return os.Chmod(path, 0o757) },
			why: "can be written by others", after: Record{Name: next, Proven: true},
		},
		{
			name: "others_can_replace_it", record: Record{Name: next, Proven: true}, spoil: func(state, _ string) error { return os.Chmod(Releases(state), 0o777) },
			why: "can be written by others", after: Record{Name: next, Proven: true},
		},
		{
			name: "it_is_a_link", record: Record{Name: next, Proven: true}, why: "not what it should be", after: Record{Name: next, Proven: true},
			spoil: func(_, path string) error {
				return errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path))
			},
		},
		{
			name: "it_cannot_be_executed", record: Record{Name: next, Proven: true}, spoil: func(_, path string) error { return os.Chmod(path, 0o644) },
			why: "cannot be executed", after: Record{Name: next, Proven: true},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			state := t.TempDir()
			if err := os.Chmod(state, 0o711); err != nil {
				t.Fatal(err)
			}
			named := func(r Record) Record {
				for _, field := range []*string{&r.Name, &r.Previous, &r.Earlier, &r.Gone} {
					if *field != "" {
						*field = program(t, state, *field, "program of "+*field)
					}
				}
				return r
			}
			if record := named(c.record); record.Name != "" {
				if err := Write(state, &record); err != nil {
					t.Fatal(err)
				}
			}
			after := named(c.after)
			if c.spoil != nil {
				if err := c.spoil(state, Path(state, after.Name)); err != nil {
					t.Fatal(err)
				}
			}
			if c.own == "" {
				c.own = own
			}
			path, err := Choose(state, c.own)
			if got := Version(filepath.Base(filepath.Dir(path))); path != "" && got != c.want || path == "" && c.want != "" {
				t.Errorf("it chose %q, not that of %q", path, c.want)
			}
			if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
				t.Errorf("why: %v, not %q", err, c.why)
			}
			if got, err := Read(state); err != nil || !reflect.DeepEqual(got, after) {
				t.Errorf("the record is %+v (%v), not %+v", got, err, after)
			}
		})
	}
}

// TestChooseOnceOnly: a release that is not proven and ended in order is started again, and that start is one that must end in order too.
func TestChooseOnceOnly(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	name := program(t, state, "2", "two")
	if err := errors.Join(os.Chmod(state, 0o711), Write(state, &Record{Name: name, Ended: true})); err != nil {
		t.Fatal(err)
	}
	if path, err := Choose(state, "1"); path != Path(state, name) || err != nil {
		t.Errorf("the first time: %q, %v", path, err)
	}
	if path, err := Choose(state, "1"); path != "" || err == nil {
		t.Errorf("the second time: %q, %v", path, err)
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no_json": "{", "a_path": `{"name":"../../../tmp/x-1"}`, "a_path_before": `{"previous":"a/b-1"}`, "above": `{"name":".."}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := t.TempDir()
			if err := errors.Join(os.Mkdir(Dir(state), 0o700), os.WriteFile(recordPath(state), []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
			if r, err := Read(state); err == nil {
				t.Errorf("it reads %+v", r)
			}
			if path, err := Choose(state, "1"); path != "" || err == nil {
				t.Errorf("it chooses %q, %v", path, err)
			}
		})
	}
}

func TestKeepAndPrune(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	one, two := program(t, state, "1", "one"), program(t, state, "2", "two")
	if text, err := os.ReadFile(Path(state, one)); err != nil || string(text) != "one" {
		t.Errorf("kept is %q, %v", text, err)
	}
	f, err := os.Open(Path(state, one))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Keep(state, "3-0123456789ab", f); err == nil {
		t.Error("another program is kept under the name")
	}
	if err := os.WriteFile(Path(state, one), []byte("something else"), 0o755); err != nil {
		t.Fatal(err)
	}
	if program(t, state, "1", "one") != one {
		t.Fatal("another name")
	}
	if text, err := os.ReadFile(Path(state, one)); err != nil || string(text) != "one" {
		t.Errorf("kept over what was changed is %q, %v", text, err)
	}
	if err := Prune(state, two); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(Releases(state)); err != nil || len(entries) != 1 || entries[0].Name() != two {
		t.Errorf("left is %v, %v", entries, err)
	}
}
