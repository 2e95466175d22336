package client

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"bailey/internal/window"
	"bailey/update/release"
	"bailey/update/trust"

	"github.com/google/go-cmp/cmp"
)

// TestPreview says what would come, and changes nothing.
func TestPreview(t *testing.T) {
	t.Parallel()
	evening, err := window.ParseWeek([]string{"Thu 22:00-23:00"})
	if err != nil {
		t.Fatal(err)
	}
	one := map[string]string{"rules": "one"}
	for name, c := range map[string]struct {
		do    func(*world)
		force bool
		want  Preview
	}{
		"nothing": {do: func(w *world) { w.step() }, want: Preview{Why: "nothing is offered"}},
		"held_back": {do: func(w *world) {
			w.cfg.Lag = 1
			w.boot()
			w.offer(content, "1", one, nil)
			w.offer(content, "2", one, func(d *release.Description) { d.Requires = map[string]release.Constraint{"code": constraint(">=9")} })
			w.offer(content, "3", one, func(d *release.Description) { d.Platforms = []string{"linux/arm64"} })
			w.settle(content)
			w.offer(content, "4", one, nil)
			w.step()
		}, want: Preview{Why: "4: it is held back until it is 1 behind the newest, and it is 0", Others: []Another{
			{"4", "it is held back until it is 1 behind the newest, and it is 0"}, {"3", "it is not for linux/amd64"}, {"2", "it needs the code of edr >=9, and that is 7.1"},
		}}},
		"to_be_fetched": {do: func(w *world) {
			w.offer(content, "1", one, nil)
			w.offer(content, "2", one, func(d *release.Description) {
				d.Requires = map[string]release.Constraint{"code": constraint(">=7"), "platform": constraint(">=1")}
			})
			w.repo.silent = trust.ErrUnavailable
			w.step()
			o := w.repo.offers[content.String()][0]
			write(w.t, filepath.Join(w.cfg.Dir, downloadsDir, o.SHA256+trust.PartSuffix), "half")
		}, want: Preview{
			Version: "2", State: Fetch, Bytes: 1, Fetched: 4, Requires: []string{"code >=7", "platform >=1"},
			Ahead: []State{Stage, Rehearse, Shadow, Promote, Watch, Committed}, Others: []Another{{"1", "another comes first"}},
		}},
		"no_room": {do: func(w *world) {
			write(w.t, filepath.Join(w.cfg.Dir, basesDir, "another", "x"), strings.Repeat("x", 2000))
			w.cfg.Disk = 2000
			w.boot()
			w.offer(content, "1", one, nil)
			w.step()
		}, want: Preview{
			Version: "1", State: Fetch, Bytes: 1, Waits: []Wait{{Fetch, "the update: no room for it: "}}, Ahead: []State{Stage, Rehearse, Shadow, Promote, Watch, Committed},
		}},
		"asks_for_more": {do: func(w *world) {
			w.host.asks = []string{"deny"}
			w.offer(content, "1", one, nil)
			w.settle(content)
		}, want: Preview{Version: "1", State: Approve, Waits: []Wait{{Approve, "it asks for more than it may: deny"}}, Ahead: []State{Rehearse, Shadow, Promote, Watch, Committed}}},
		"much_in_its_way": {do: inTheWay(evening, one), want: Preview{
			Version: "1", State: Promote, Ahead: []State{Watch, Committed}, Waits: []Wait{
				{Promote, "paused by the operator"}, {Promote, "outside of its windows until Thu 22:00"}, {Promote, "the repository was not seen for 2h"},
			},
		}},
		"before_its_window": {do: func(w *world) {
			w.cfg.Windows = evening
			w.boot()
			w.offer(content, "1", one, nil)
			w.until(content, Shadow)
		}, want: Preview{Version: "1", State: Shadow, Ahead: []State{Promote, Watch, Committed}, Waits: []Wait{{Shadow, "outside of its windows until Thu 22:00"}}}},
		"by_force": {do: inTheWay(evening, one), force: true, want: Preview{
			Version: "1", State: Promote, Ahead: []State{Watch, Committed}, Waits: []Wait{{Promote, "the repository was not seen for 2h"}},
		}},
		"watched_and_there_is_more": {do: func(w *world) {
			w.offer(content, "1", one, nil)
			w.until(content, Watch)
			w.offer(content, "2", one, nil)
			w.step()
		}, want: Preview{Version: "1", State: Watch, Ahead: []State{Committed}, Others: []Another{{"2", "another comes first"}}}},
		"frozen": {do: func(w *world) {
			for i := range 3 {
				w.offer(content, fmt.Sprint(i+1), map[string]string{"rules": "bad"}, nil)
				w.settle(content)
			}
			w.step()
		}, want: Preview{Why: "frozen: 3 releases went wrong within a day, the last: rehearsal: it crashed", Others: []Another{
			{"3", "refused: rehearsal: it crashed"}, {"2", "refused: rehearsal: it crashed"}, {"1", "refused: rehearsal: it crashed"},
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, content)
			w.preinstall("7.1", "old")
			c.do(w)
			before, files := w.status(content), tree(t, w.dir)
			told := slices.Clone(w.told)
			got, err := w.c.Preview(content, c.force)
			if err != nil {
				t.Fatal(err)
			}
			if got.Bytes > 0 { // as long as the bundle is
				got.Bytes = 1
			}
			for i := range min(len(got.Waits), len(c.want.Waits)) { // sizes and seconds differ
				if strings.HasPrefix(got.Waits[i].Reason, c.want.Waits[i].Reason) {
					got.Waits[i].Reason = c.want.Waits[i].Reason
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !reflect.DeepEqual(before, w.status(content)) || !slices.Equal(files, tree(t, w.dir)) || !slices.Equal(told, w.told) {
				t.Error("something was changed")
			}
		})
	}
	t.Run("a_delta", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		w.offer(content, "1", one, nil)
		w.settle(content)
		w.offer(content, "2", one, nil)
		o := &w.repo.offers[content.String()][0]
		o.Deltas = []trust.Delta{{Target: w.add(release.DeltaPath(o.Path, version("1")), []byte("short")), Base: version("1")}}
		w.repo.silent = trust.ErrUnavailable
		w.step()
		if got, err := w.c.Preview(content, false); err != nil || got.Base != "1" || got.Bytes != 5 || got.Version != "2" {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		t.Parallel()
		if _, err := newWorld(t, content).c.Preview(code, false); !errors.Is(err, ErrUnknown) {
			t.Error(err)
		}
	})
}

// inTheWay stages a release and lets much stand in its way.
func inTheWay(w window.Week, files map[string]string) func(*world) {
	return func(world *world) {
		world.offer(content, "1", files, nil)
		world.until(content, Promote)
		if err := world.c.Pause(content); err != nil {
			world.t.Fatal(err)
		}
		world.cfg.Windows = w
		world.boot()
		world.c.Refresh(world.t.Context())
		world.now = world.now.Add(2 * time.Hour)
	}
}

// tree lists what is below a directory, with sizes and times.
func tree(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		out = append(out, fmt.Sprint(path, info.Size(), info.ModTime()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestEveryStateIsOnTheWay, or is where one ends that does not go well.
func TestEveryStateIsOnTheWay(t *testing.T) {
	t.Parallel()
	for st := range moves {
		if away := slices.Contains([]State{RollBack, RolledBack, Refused, Superseded}, st); away == slices.Contains(onTheWay, st) {
			t.Errorf("%s: %t", st, away)
		}
	}
	for i, st := range onTheWay[1:] {
		from := onTheWay[i]
		if from != Approve && !slices.Contains(moves[from], st) && !(st == Approve && slices.Contains(moves[from], onTheWay[i+2])) {
			t.Errorf("from %s to %s", from, st)
		}
	}
}

func TestOverrides(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	w.offer(content, "1", map[string]string{"rules": "bad"}, nil)
	w.offer(content, "2", map[string]string{"rules": "two"}, nil)
	want := func(words ...string) {
		t.Helper()
		if st := w.status(content); !slices.Equal(st.Record.Overrides(), words) {
			t.Errorf("%q, want %q", st.Record.Overrides(), words)
		}
	}
	w.settle(content)
	want()
	for _, err := range []error{w.c.Skip(content, version("3")), w.c.Pin(content, version("1")), w.c.Pause(content)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want("paused", "pinned to 1", "skips 3")
	w.boot()
	want("paused", "pinned to 1", "skips 3")
	w.settle(content)
	if err := w.c.Approve(content, true); err != nil {
		t.Fatal(err)
	}
	want("paused", "pinned to 1", "skips 3", "forces 1")
	if u := w.settle(content); u.State != Committed {
		t.Fatalf("%+v", u)
	}
	want("paused", "pinned to 1", "skips 3", "forces 1")
	if err := errors.Join(w.c.Resume(content), w.c.Pin(content, release.Version{})); err != nil {
		t.Fatal(err)
	}
	w.step()
	w.settle(content)
	want()
}

// TestRoom: what does not fit is not begun, is not given up, and comes in when there is room.
func TestRoom(t *testing.T) {
	t.Parallel()
	large := map[string]string{"rules": strings.Repeat("a rule that is much like the others\n", 20_000)}
	room := func(t *testing.T, disk int64, used int, files map[string]string) *world {
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		write(t, filepath.Join(w.cfg.Dir, basesDir, "another", "x"), strings.Repeat("x", used))
		w.cfg.Disk = disk
		w.boot()
		w.offer(content, "1", files, nil)
		for range 100 {
			w.step()
			w.now = w.now.Add(time.Minute)
		}
		return w
	}
	comes := func(t *testing.T, w *world) {
		t.Helper()
		w.cfg.Disk = 0
		w.boot()
		w.now = w.now.Add(longestWait)
		if u := w.settle(content); u.State != Committed {
			t.Errorf("%+v", u)
		}
	}
	t.Run("never", func(t *testing.T) {
		t.Parallel()
		w := room(t, 100, 0, large)
		if got := w.status(content).Waiting; !strings.HasPrefix(got, "1: it has ") || !strings.HasSuffix(got, " bytes, and updates may use 100") {
			t.Errorf("waiting %q", got)
		}
		comes(t, w)
	})
	t.Run("not_fetched", func(t *testing.T) {
		t.Parallel()
		w := room(t, 5000, 5000, map[string]string{"rules": "one"})
		u := w.update(content)
		if u.State != Fetch || !strings.Contains(u.Reason, "no room for it: ") || !strings.HasSuffix(u.Reason, "5000 are used by updates, and they may use 5000") {
			t.Errorf("%s: %s", u.State, u.Reason)
		}
		if left, err := os.ReadDir(filepath.Join(w.cfg.Dir, downloadsDir)); err != nil || len(left) != 0 {
			t.Errorf("fetched: %v, %v", left, err)
		}
		comes(t, w)
	})
	t.Run("twice_by_way_of_another_directory", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		w.offer(content, "1", map[string]string{"rules": "one"}, nil)
		length := w.repo.offers[content.String()][0].Length
		w.cfg.Partial, w.cfg.Disk = filepath.Join(w.dir, "elsewhere"), length+length/2
		w.boot()
		w.step()
		if u := w.update(content); u.State != Fetch || !strings.Contains(u.Reason, fmt.Sprintf("%d bytes are needed", 2*length)) {
			t.Errorf("%s: %s", u.State, u.Reason)
		}
		comes(t, w)
	})
	t.Run("not_unpacked", func(t *testing.T) {
		t.Parallel()
		w := room(t, 1_000_000, 0, large) // the bundle fits, its 720,000 bytes twice do not
		u := w.update(content)
		if u.State != Stage || !strings.Contains(u.Reason, "no room for it: 144") {
			t.Errorf("%s: %s", u.State, u.Reason)
		}
		if n, err := sizeOf(w.c.staged(content)); err != nil || n != 0 {
			t.Errorf("%d bytes unpacked, %v", n, err)
		}
		comes(t, w)
	})
}

// TestProgress: what is being fetched is seen coming.
func TestProgress(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	w.offer(content, "1", map[string]string{"rules": "one"}, nil)
	w.repo.silent = trust.ErrSlow
	w.step()
	o := w.repo.offers[content.String()][0]
	for _, n := range []int{0, 100, int(o.Length)} {
		write(t, filepath.Join(w.cfg.Dir, downloadsDir, o.SHA256+trust.PartSuffix), strings.Repeat("x", n))
		if st := w.status(content); st.Fetched != int64(n) || st.Bytes != o.Length {
			t.Errorf("%d of %d, want %d of %d", st.Fetched, st.Bytes, n, o.Length)
		}
	}
}

// TestWhatWasBegunGoes: half a download of a release that is wanted no more is no use to anybody.
func TestWhatWasBegunGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	w.offer(content, "1", map[string]string{"rules": "one"}, nil)
	w.repo.silent = trust.ErrSlow
	w.step()
	write(t, filepath.Join(w.cfg.Dir, downloadsDir, w.repo.offers[content.String()][0].SHA256+trust.PartSuffix), "half")
	w.repo.silent = nil
	w.offer(content, "2", map[string]string{"rules": "two"}, nil)
	if u := w.settle(content); u.State != Committed || u.version() != "2" {
		t.Fatalf("%+v", u)
	}
	if left, err := os.ReadDir(filepath.Join(w.cfg.Dir, downloadsDir)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
