package file

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
)

// Every row of the table "after marking" in the facts about ignore marks.
func TestWhatDropsACachedVerdict(t *testing.T) {
	for _, fs := range []struct {
		name string
		make func(testing.TB) string
	}{{"tmpfs", scratch}, {"ext4", func(t testing.TB) string { return scratchExt4(t) }}} {
		t.Run(fs.name, func(t *testing.T) {
			r := newRig(t, fs.make(t))
			r.s.SetOpenScope([]string{r.dir})
			r.s.SetQuestions(false, true)
			sub := startSubject(t)
			for _, c := range []struct {
				how     string
				dropped bool
			}{
				{"write", true}, {"pwrite", true}, {"otrunc", true}, {"truncate", true}, {"ftruncate", true}, {"fallocate", true},
				{"copy_file_range", true}, {"splice", true},
				{"chmod", false}, {"utimes", false}, {"openwrite_held", false},
			} {
				t.Run(c.how, func(t *testing.T) {
					// The late close of whoever made the file can take the mark away just before; then the writer itself is asked
					// about, and its verdict is dropped when its close is told of, a moment after the open below. Not three times.
					asked := false
					for try := range 3 {
						asked = r.askedAfter(sub, c.how, fmt.Sprintf("%s-%d", c.how, try))
						if asked == c.dropped {
							return
						}
					}
					t.Errorf("asked again: %v, want %v", asked, c.dropped)
				})
			}
			t.Run("rename_and_link_keep", func(t *testing.T) {
				path := r.file("old")
				r.cached(sub, path)
				sub.do("rename", path, path+"2")
				sub.do("link", path+"2", path+"3")
				before := r.s.Stats().Read
				sub.do("open", path+"2")
				sub.do("open", path+"3")
				if n := r.s.Stats().Read - before; n != 0 {
					t.Errorf("asked %d times", n)
				}
			})
			t.Run("replaced_by_rename_is_asked", func(t *testing.T) {
				path, other := r.file("victim"), r.file("other")
				r.cached(sub, path)
				sub.do("rename", other, path)
				r.asks[event.Open].Store(0)
				sub.do("open", path)
				if r.asked(event.Open) != 1 {
					t.Error("the new file was not asked about")
				}
			})
			t.Run("recreated_is_asked", func(t *testing.T) {
				path := r.file("again")
				r.cached(sub, path)
				sub.do("unlink", path)
				sub.do("create", path)
				r.asks[event.Open].Store(0)
				sub.do("open", path)
				if r.asked(event.Open) != 1 {
					t.Error("the new file was not asked about")
				}
			})
		})
	}
}

// askedAfter reports whether the next open of a file is asked about after something was done to it while it was cached.
func (r *rig) askedAfter(sub *proc, how, name string) bool {
	r.t.Helper()
	path := r.file(name)
	r.cached(sub, path)
	if how == "openwrite_held" {
		// Closing would drop it through the notify group: see TestClosingAWriterDrops.
		how = "hold"
	}
	sub.do(how, path)
	before := r.s.Stats().Read
	sub.do("open", path)
	asked := r.s.Stats().Read > before
	if how == "hold" {
		sub.do("letgo", path)
	}
	return asked
}

// cached makes the kernel remember a verdict about path and proves that it does.
func (r *rig) cached(sub *proc, path string) {
	r.t.Helper()
	// The close of whoever wrote the file is told asynchronously and may take the first mark away again.
	eventually(r.t, path+" is cached", func() bool {
		sub.do("open", path)
		before := r.s.Stats().Read
		sub.do("open", path)
		return r.s.Stats().Read == before
	})
}

// An open for writing drops nothing, but its close does, through the notify group.
func TestClosingAWriterDrops(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	sub := startSubject(t)
	path := r.file("f")
	r.cached(sub, path)
	before := r.s.Stats().CacheDropped
	sub.do("openwrite", path)
	eventually(t, "the mark is dropped", func() bool { return r.s.Stats().CacheDropped > before })
}

// While a file is open for writing the kernel accepts a mark and does not add it.
func TestNotCachedWhileOpenForWriting(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	sub := startSubject(t)
	path := r.file("f")
	r.answer(allow)
	sub.do("hold", path)
	r.answer(allowCached)
	before := r.s.Stats().Read
	for range 3 {
		sub.do("open", path)
	}
	if n := r.s.Stats().Read - before; n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
	sub.do("letgo", path)
}

// The hole: a store through a shared mapping leaves the mark. It closes when the mapping goes.
func TestStoreThroughSharedMapping(t *testing.T) {
	for _, fs := range []struct {
		name string
		make func(testing.TB) string
	}{{"tmpfs", scratch}, {"ext4", func(t testing.TB) string { return scratchExt4(t) }}} {
		t.Run(fs.name, func(t *testing.T) {
			var forgotten sync.Map // inode to nothing
			r := newRig(t, fs.make(t), func(c *Config) { c.Forget = func(_, ino uint64) { forgotten.Store(ino, nil) } })
			r.s.SetOpenScope([]string{r.dir})
			r.s.SetQuestions(false, true)
			sub := startSubject(t)
			path := r.file("f")
			r.cached(sub, path)
			sub.do("map", path)
			forgotten.Clear()
			sub.do("store", path)
			before := r.s.Stats()
			sub.do("open", path)
			if r.s.Stats().Read != before.Read {
				t.Log("the kernel drops the mark on a store: the hole is closed here")
			}
			sub.do("unmap", path)
			eventually(t, "the mark is dropped after munmap", func() bool { return r.s.Stats().CacheDropped > before.CacheDropped })
			// Nobody wants events: whoever else remembers the file must hear of it nevertheless.
			if _, ok := forgotten.Load(inode(t, path)); !ok {
				t.Error("Forget did not hear that the writer closed the file")
			}
			r.asks[event.Open].Store(0)
			sub.do("open", path)
			if r.asked(event.Open) != 1 {
				t.Error("not asked after munmap")
			}
		})
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// The race: the product decides about v1, a writer writes v2, and only then the mark is added.
func TestWrittenBetweenDecisionAndMark(t *testing.T) {
	for _, how := range []string{"write", "truncate", "store_and_unmap", "same_tick"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t, "")
			r.s.SetOpenScope([]string{r.dir})
			r.s.SetQuestions(false, true)
			path := r.file("f")
			writer, sub := startSubject(t), startSubject(t)
			r.answer(allow)
			if how == "store_and_unmap" {
				// The page is dirty already, so that the next store changes no timestamp.
				writer.do("map", path)
				writer.do("store", path)
				r.settle()
			}
			if how == "same_tick" {
				writer.do("write", path)
			}
			r.exempt.Store(writer.pid())
			r.answer(func(q *event.Question) {
				go func() { // what a product does: decide, and answer later
					switch how {
					case "store_and_unmap":
						writer.do("store", path)
						before := r.closes(q)
						writer.do("unmap", path)
						for i := 0; i < 1000 && r.closes(q) == before; i++ {
							<-time.After(time.Millisecond)
						}
					case "truncate": // by name: nothing is opened, so no close is told
						writer.do("truncate", path)
					default:
						writer.do("write", path)
					}
					allowCached(q)
				}()
			})
			sub.do("open", path)
			r.answer(allow)
			before := r.asked(event.Open)
			eventually(t, "the first question is done", func() bool { return r.s.Stats().Pending == 0 })
			sub.do("open", path)
			if r.asked(event.Open) != before+1 {
				t.Errorf("v2 is not asked about: a verdict about v1 was cached: %+v", r.s.Stats())
			}
		})
	}
}

func (r *rig) closes(q *event.Question) uint32 {
	return r.s.cache.stripe(q.File.Dev, q.File.Ino).Load()
}

// A writer and an opener race for real; whenever the writer has finished, the newest content must have been asked about.
func TestRaceOfWritersAndCache(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	path := r.file("f")
	writer, sub := startSubject(t), startSubject(t)
	r.exempt.Store(writer.pid())
	var asked atomic.Int64 // the largest size that was asked about; writers only append
	r.answer(func(q *event.Question) {
		for old := asked.Load(); q.File.Size > old && !asked.CompareAndSwap(old, q.File.Size); old = asked.Load() {
		}
		allowCached(q)
	})
	for i := range 200 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			sub.do("openmany", path, fmt.Sprint(1+i%7))
		}()
		writer.do("write", path)
		<-done
		// Nobody writes any more. Unless this very size was asked about, a stale verdict is in force.
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		sub.do("open", path)
		if asked.Load() != st.Size {
			t.Fatalf("round %d: size %d was not asked about, only %d", i, st.Size, asked.Load())
		}
	}
}

func TestFlushCacheForgetsEverythingAtOnce(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	sub := startSubject(t)
	var paths []string
	for i := range 20 {
		paths = append(paths, filepath.Join(r.dir, fmt.Sprint(i)))
		if err := os.WriteFile(paths[i], []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r.settle()
	for _, p := range paths {
		r.cached(sub, p)
	}
	if err := r.s.FlushCache(); err != nil {
		t.Fatal(err)
	}
	before := r.s.Stats().Read
	for _, p := range paths {
		sub.do("open", p)
	}
	if n := r.s.Stats().Read - before; n != 20 {
		t.Errorf("%d of 20 asked after the flush", n)
	}
}

// A verdict that was decided before a flush must not be cached after it.
func TestFlushDuringADecision(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	path := r.file("f")
	sub := startSubject(t)
	r.answer(func(q *event.Question) {
		if err := r.s.FlushCache(); err != nil {
			t.Error(err)
		}
		allowCached(q)
	})
	sub.do("open", path)
	// The mark comes after the answer, and for a moment it is there.
	eventually(t, "the first mark is taken back", func() bool { return r.s.Stats().CacheTakenBack == 1 })
	sub.do("open", path)
	if n := r.asked(event.Open); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
	eventually(t, "both marks are taken back", func() bool { return r.s.Stats().CacheTakenBack == 2 })
}

func TestJustWrittenIsNotCached(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	path := filepath.Join(r.dir, "fresh")
	sub := startSubject(t)
	sub.do("create", path)
	sub.do("open", path)
	eventually(t, "the verdict is skipped", func() bool { return r.s.Stats().CacheSkipped > 0 })
	if st := r.s.Stats(); st.CacheSet != 0 {
		t.Errorf("cached a file in the tick of its last change: %+v", st)
	}
	<-time.After(racyWindow)
	r.cached(sub, path)
}

func TestOutsideTheScope(t *testing.T) {
	r := newRig(t, "")
	in, out := filepath.Join(r.dir, "in"), filepath.Join(r.dir, "out")
	for _, d := range []string{in, out} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.s.SetOpenScope([]string{in})
	r.s.SetQuestions(false, true)
	r.answer(deny)
	sub := startSubject(t)
	opensUnasked := func(path string) {
		t.Helper()
		eventually(t, path+" is ignored by the kernel", func() bool {
			sub.do("open", path)
			before := r.s.Stats().Read
			sub.do("open", path)
			return r.s.Stats().Read == before
		})
	}
	denied := func(path string) {
		t.Helper()
		eventually(t, path+" is asked about", func() bool {
			errno, _ := sub.try("open", path)
			return errno == unix.EPERM
		})
	}
	t.Run("renamed_into_it", func(t *testing.T) {
		opensUnasked(r.file("out/a"))
		sub.do("rename", filepath.Join(out, "a"), filepath.Join(in, "a"))
		denied(filepath.Join(in, "a"))
	})
	t.Run("linked_into_it", func(t *testing.T) {
		opensUnasked(r.file("out/b"))
		sub.do("link", filepath.Join(out, "b"), filepath.Join(in, "b"))
		denied(filepath.Join(in, "b"))
		sub.do("open", filepath.Join(out, "b")) // must not set the mark again: the file has two names
		denied(filepath.Join(in, "b"))
	})
	t.Run("its_directory_renamed_into_it", func(t *testing.T) {
		opensUnasked(r.file("out/d/c"))
		sub.do("rename", filepath.Join(out, "d"), filepath.Join(in, "d"))
		denied(filepath.Join(in, "d", "c"))
	})
	t.Run("bind_mounted_into_it", func(t *testing.T) {
		opensUnasked(r.file("out/e/c"))
		at := filepath.Join(in, "bind")
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(filepath.Join(out, "e"), at, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		denied(filepath.Join(at, "c"))
		eventually(t, "the mount is not busy with the question's descriptor", func() bool { return unix.Unmount(at, 0) == nil })
	})
	t.Run("scope_widened", func(t *testing.T) {
		opensUnasked(r.file("out/f"))
		r.s.SetOpenScope([]string{r.dir})
		denied(filepath.Join(out, "f"))
	})
}
