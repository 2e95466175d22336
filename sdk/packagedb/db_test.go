package packagedb

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestRunReloads changes the database as dpkg does, by renames, and demands that a reader never meets half of it.
func TestRunReloads(t *testing.T) {
	t.Parallel()
	root := writeTree(t, dpkgFixture)
	db, err := New(Config{Root: root, Interval: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	loaded := make(chan *Snapshot, 16)
	db.Watch(func(s *Snapshot) { loaded <- s })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- db.Run(ctx) }()
	<-loaded

	info := filepath.Join(root, "var/lib/dpkg/info/dash.md5sums")
	replace(t, info, sum("dash 2")+"  bin/dash\n")
	deadline := time.After(10 * time.Second)
	for {
		e, ok := db.Snapshot().Lookup("/usr/bin/dash")
		if !ok {
			t.Fatal("the old snapshot was gone before the new one was there")
		}
		if e.Digest.String() == "md5:"+sum("dash 2") {
			break
		}
		select {
		case <-loaded:
		case <-deadline:
			t.Fatalf("the new digest was not seen, %s is still served", e.Digest)
		}
	}

	// A database that cannot be read leaves the old snapshot.
	status := filepath.Join(root, "var/lib/dpkg/status")
	if err := os.Rename(status, status+".away"); err != nil {
		t.Fatal(err)
	}
	if err := db.Load(t.Context()); err == nil {
		t.Error("a load without a status file succeeded")
	}
	if _, ok := db.Snapshot().Lookup("/usr/bin/dash"); !ok {
		t.Error("a failed load took the old snapshot away")
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func replace(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestInTransaction(t *testing.T) {
	t.Parallel()
	newDB := func(t *testing.T, settle time.Duration) (*DB, string) {
		files := map[string]string{"var/lib/dpkg/lock-frontend": "", "var/lib/dpkg/updates/.keep": ""}
		for name, content := range dpkgFixture {
			files[name] = content
		}
		root := writeTree(t, files)
		if err := os.Remove(filepath.Join(root, "var/lib/dpkg/updates/.keep")); err != nil {
			t.Fatal(err)
		}
		db, err := New(Config{Root: root, Settle: settle})
		if err != nil {
			t.Fatal(err)
		}
		return db, root
	}
	tests := map[string]struct {
		settle time.Duration
		change func(t *testing.T, root string)
		want   bool
	}{
		"quiet":    {time.Nanosecond, func(*testing.T, string) {}, false},
		"settling": {time.Hour, func(*testing.T, string) {}, true},
		"frontend_lock_held": {time.Nanosecond, func(t *testing.T, root string) {
			t.Cleanup(lock(t, root))
		}, true},
		"journal_entry": {time.Nanosecond, func(t *testing.T, root string) {
			if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/updates/0000"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}, true},
		"not_loaded_yet": {time.Nanosecond, func(t *testing.T, root string) {
			replace(t, filepath.Join(root, "var/lib/dpkg/info/dash.list"), "/.\n")
		}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, root := newDB(t, test.settle)
			if !db.InTransaction() {
				t.Error("no transaction before the first load")
			}
			if err := db.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			test.change(t, root)
			if name == "journal_entry" { // only the entry itself shall tell
				if err := db.Load(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if got := db.InTransaction(); got != test.want {
				t.Errorf("InTransaction = %v, want %v", got, test.want)
			}
		})
	}
}

// A database that goes on changing, as in a transaction, is loaded a tenth of the time at most, and once more when it is over.
func TestRunRestsBetweenLoads(t *testing.T) {
	t.Parallel()
	root := writeTree(t, dpkgFixture)
	synctest.Test(t, func(t *testing.T) {
		db, err := New(Config{Root: root, Interval: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		var loads atomic.Int32
		db.Watch(func(*Snapshot) { // what it costs
			loads.Add(1)
			<-time.After(100 * time.Millisecond)
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- db.Run(ctx) }()

		info, last := filepath.Join(root, "var/lib/dpkg/info/dash.md5sums"), ""
		for i := range 1000 {
			last = sum(fmt.Sprint("dash ", i))
			replace(t, info, last+"  bin/dash\n")
			<-time.After(10 * time.Millisecond)
		}
		if n := loads.Load(); n < 5 || n > 11 {
			t.Errorf("loaded %d times in 10 s, and each time took a tenth of a second", n)
		}
		<-time.After(2 * time.Second)
		if e, ok := db.Snapshot().Lookup("/usr/bin/dash"); !ok || e.Digest.String() != "md5:"+last {
			t.Errorf("the last state was not loaded: %v", e)
		}
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// lock takes the lock that a package manager holds while it works.
func lock(t *testing.T, root string) (release func()) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(root, "var/lib/dpkg/lock-frontend"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	// A lock of another open file conflicts like one of another process.
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// While a package manager works what it has changed so far is loaded now and then, and all of it when it is done.
func TestRunWaitsForTheLock(t *testing.T) {
	t.Parallel()
	root := writeTree(t, dpkgFixture)
	synctest.Test(t, func(t *testing.T) {
		db, err := New(Config{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		loads := make(chan time.Duration, 100)
		begin := time.Now()
		db.Watch(func(*Snapshot) { loads <- time.Since(begin) })
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- db.Run(ctx) }()
		synctest.Wait()

		release := lock(t, root)
		for i := range 25 {
			replace(t, filepath.Join(root, "var/lib/dpkg/info/dash.md5sums"), sum(fmt.Sprint("dash ", i))+"  bin/dash\n")
			<-time.After(time.Second)
		}
		if n := len(loads); n != 3 {
			t.Fatalf("loaded %d times", n)
		}
		if first, second, third := <-loads, <-loads, <-loads; first != 0 || second < 10*time.Second || third < 20*time.Second {
			t.Errorf("loaded after %v, and after %v and %v of a transaction", first, second, third)
		}
		release()
		<-time.After(1500 * time.Millisecond)
		if e, ok := db.Snapshot().Lookup("/usr/bin/dash"); !ok || e.Digest.String() != "md5:"+sum("dash 24") {
			t.Errorf("after the transaction %v is served", e)
		}
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
