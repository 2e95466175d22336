package client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bailey/update/release"

	"golang.org/x/sys/unix"
)

// TestPowerCuts cuts the power between any two steps, and within each right after it did what it does: it always ends the same.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	for at := range 10 {
		for _, cut := range []string{"", "rehearse", "shadow", "install", "back"} {
			for _, harm := range []string{"", "it crashed"} {
				t.Run(fmt.Sprintf("step_%d_%s_%s", at, cut, harm), func(t *testing.T) {
					w := newWorld(t, content)
					w.preinstall("7.1", "old")
					w.offer(content, "1", map[string]string{"rules": "new"}, nil)
					w.host.harm = harm
					for i := 0; ; i++ {
						if i == at {
							w.host.cut = cut
							w.host.beside, w.host.warm = "", "" // they do not outlive the agent
							w.boot()
						}
						before := w.host.cut
						w.step()
						if before != "" && w.host.cut == "" { // what the step found is lost
							w.boot()
						}
						if u := w.update(content); u != nil && u.State.Ended() && i > at {
							break
						}
						if i > 300 {
							t.Fatalf("it never ends: %+v", w.update(content))
						}
						w.now = w.now.Add(20 * time.Second)
					}
					u := w.update(content)
					want, state := "7.1 with new", Committed
					if harm != "" {
						want, state = "7.1 with old", RolledBack
					}
					if w.inForce() != want || u.State != state || w.host.installs != 1 {
						t.Errorf("%s, %s: %s, installed %d times", w.inForce(), u.State, u.Reason, w.host.installs)
					}
				})
			}
		}
	}
}

// TestAnEndIsOnTheDiskFirst: a power cut before the end of an update is written down leaves what the update needs to end again.
func TestAnEndIsOnTheDiskFirst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rules       string
		before, end State
	}{{"bad", Rehearse, Refused}, {"new", Watch, Committed}} {
		t.Run(string(c.end), func(t *testing.T) {
			w := newWorld(t, content)
			w.preinstall("7.1", "old")
			w.offer(content, "1", map[string]string{"rules": c.rules}, nil)
			w.until(content, c.before)
			done := watchDisk(t, w.c.staged(content), filepath.Join(w.cfg.Dir, downloadsDir), filepath.Join(w.cfg.Dir, streamsDir))
			w.now = w.now.Add(2 * w.cfg.Watch)
			if u := w.settle(content); u.State != c.end {
				t.Fatalf("%+v", u)
			}
			w.tidied(content, c.end == Committed)
			record := content.Role() + ".json"
			last, gone := -1, []string{}
			for i, name := range done() {
				if name == record {
					last, gone = i, nil
				} else {
					gone = append(gone, name)
				}
			}
			if last < 0 || !slices.Contains(gone, folderDir) || !slices.Contains(gone, filesDir) || len(gone) < 4 { // a manifest and a bundle too
				t.Errorf("after the record there went %q", gone)
			}
		})
	}
}

// watchDisk returns the names of what comes into directories by being moved there, or goes from them, in the order in which that is done.
func watchDisk(t *testing.T, dirs ...string) (done func() []string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	t.Cleanup(func() { _ = f.Close() })
	for _, dir := range dirs {
		what := uint32(unix.IN_DELETE | unix.IN_MOVED_FROM)
		if filepath.Base(dir) == streamsDir {
			what = unix.IN_MOVED_TO
		}
		if _, err := unix.InotifyAddWatch(fd, dir, what); err != nil {
			t.Fatal(err)
		}
	}
	return func() (names []string) {
		text := make([]byte, 1<<16)
		n, err := unix.Read(fd, text)
		if err != nil {
			t.Fatal(err)
		}
		for text = text[:n]; len(text) > 0; {
			size := int(binary.NativeEndian.Uint32(text[12:]))
			if name := text[unix.SizeofInotifyEvent:][:size]; size > 0 {
				names = append(names, strings.TrimRight(string(name), "\x00"))
			}
			text = text[unix.SizeofInotifyEvent+size:]
		}
		return names
	}
}

// TestADiskThatRefusesTheEnd: what the update had goes, for that may make room; where the disk goes on to refuse, the update is done again after a start.
func TestADiskThatRefusesTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	w.offer(content, "1", map[string]string{"rules": "bad"}, nil)
	w.until(content, Rehearse)
	next := w.c.path(content) + ".new"
	if err := os.Mkdir(next, 0o700); err != nil {
		t.Fatal(err)
	}
	w.c.Step(t.Context(), content)
	if st := w.status(content); st.Record.Current.State != Refused || !strings.Contains(st.Record.Problem, "cannot be written") {
		t.Fatalf("%+v, problem %q", st.Record.Current, st.Record.Problem)
	}
	if err := os.Remove(next); err != nil {
		t.Fatal(err)
	}
	w.boot()
	if u := w.update(content); u.State != Rehearse {
		t.Fatalf("on the disk it is %s", u.State)
	}
	if u := w.settle(content); u.State != Refused || !strings.Contains(u.Reason, "it crashed") {
		t.Errorf("%+v", u)
	}
	w.tidied(content, false)
}

// tidied fails unless nothing is on the disk but, if there is one, the base for deltas.
func (w *world) tidied(s release.Stream, base bool) {
	w.t.Helper()
	left, err := os.ReadDir(filepath.Join(w.cfg.Dir, downloadsDir))
	if _, serr := os.Stat(w.c.staged(s)); err != nil || len(left) > 0 || !errors.Is(serr, os.ErrNotExist) {
		w.t.Errorf("left: %v, %v; staged: %v", left, err, serr)
	}
	if _, err := w.c.baseManifest(s); (err == nil) != base {
		w.t.Errorf("base: %v", err)
	}
	if _, err := os.Stat(filepath.Join(w.c.base(s), filesDir, "rules")); (err == nil) != base {
		w.t.Errorf("base: %v", err)
	}
	if p := w.status(s).Record.Problem; p != "" {
		w.t.Errorf("problem: %s", p)
	}
}

// TestPowerCutsWhileItTidies: what an update that ended had on the disk goes at the next boot, and its files are kept for deltas.
func TestPowerCutsWhileItTidies(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(w *world, staged string) error{
		"before":                    func(*world, string) error { return nil },
		"when_the_old_base_is_gone": func(w *world, _ string) error { return os.RemoveAll(w.c.base(content)) },
		"when_its_files_are_kept": func(w *world, staged string) error {
			return os.RemoveAll(filepath.Join(staged, filesDir)) // the base has them
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, content)
			w.preinstall("7.1", "old")
			w.offer(content, "1", map[string]string{"rules": "new"}, nil)
			w.until(content, Watch)
			staged, copied := w.c.staged(content), filepath.Join(w.dir, "copied")
			if err := errors.Join(os.Mkdir(copied, 0o700), copyTree(staged, copied, "")); err != nil {
				t.Fatal(err)
			}
			w.now = w.now.Add(2 * w.cfg.Watch)
			u := w.settle(content)
			if u.State != Committed {
				t.Fatalf("%+v", u)
			}
			w.tidied(content, true)
			write(t, u.Bundle, "what was fetched")
			if err := errors.Join(os.Rename(copied, staged), cut(w, staged)); err != nil {
				t.Fatal(err)
			}
			if name == "when_its_files_are_kept" {
				if err := os.Remove(filepath.Join(w.c.base(content), manifestFile)); err != nil {
					t.Fatal(err)
				}
			}
			w.boot()
			w.tidied(content, true)
		})
	}
}

// TestWhatWasStagedIsGone: by whatever; it comes in once more.
func TestWhatWasStagedIsGone(t *testing.T) {
	t.Parallel()
	for _, at := range []State{Approve, Rehearse, Shadow, Promote} {
		for _, bundle := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s_bundle_%v", at, bundle), func(t *testing.T) {
				w := newWorld(t, content)
				w.preinstall("7.1", "old")
				if at == Approve {
					w.host.asks = []string{"deny"}
				}
				w.offer(content, "1", map[string]string{"rules": "new"}, nil)
				w.until(content, at)
				if err := os.RemoveAll(w.c.staged(content)); err != nil {
					t.Fatal(err)
				}
				if bundle {
					if err := os.Remove(w.update(content).Bundle); err != nil {
						t.Fatal(err)
					}
				}
				w.boot()
				if at == Approve {
					if err := w.c.Approve(content, false); err != nil {
						t.Fatal(err)
					}
				}
				if u := w.settle(content); u.State != Committed || w.inForce() != "7.1 with new" || !slices.Contains(w.told[1:], "1 stage") {
					t.Errorf("%+v: %s, told %q", u, w.inForce(), w.told)
				}
			})
		}
	}
}
