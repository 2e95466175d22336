package journal

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/agent/health"
	"bailey/internal/leakcheck"
)

// writerVariable makes this test binary a writer of the journal in the directory that it names.
const writerVariable = "BAILEY_JOURNAL_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerVariable); dir != "" {
		writeForever(dir)
		return
	}
	leakcheck.Main(m)
}

// writeForever commits numbered lines and says each number on stdout when it is on the disk; with many that nobody waits for
// in between.
func writeForever(dir string) {
	j, err := New(Config{Dir: dir, BootID: "test", Health: health.NewRegistry(), Log: slog.New(slog.DiscardHandler), MaxBytes: 1 << 20, SegmentBytes: 2 * maxLine})
	if err != nil {
		fmt.Println("failed:", err)
		return
	}
	go func() { _ = j.Run(context.Background()) }()
	out := bufio.NewWriter(os.Stdout)
	for i := 0; ; i++ {
		for range 20 {
			j.Note(KindAgent, map[string]any{"filler": strings.Repeat("x", i%1000)})
		}
		if err := j.Commit(KindOperator, map[string]any{"number": i}); err != nil {
			fmt.Println("failed:", err)
			return
		}
		fmt.Fprintln(out, i)
		if out.Flush() != nil {
			return
		}
	}
}

// running is a journal that runs until stop.
type running struct {
	*Journal
	t      *testing.T
	health *health.Registry
	cancel context.CancelFunc
	done   chan struct{}
}

// run starts a journal in dir.
func run(t *testing.T, dir string, change func(*Config)) *running {
	t.Helper()
	cfg := Config{Dir: dir, BootID: "b00t", Health: health.NewRegistry(), Log: slog.New(slog.DiscardHandler), Retry: 10 * time.Millisecond, Patience: time.Minute}
	if change != nil {
		change(&cfg)
	}
	j, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Journal: j, t: t, health: cfg.Health, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if err := j.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(r.stop)
	return r
}

func (r *running) stop() {
	r.cancel()
	<-r.done
}

func (r *running) commit(k Kind, fields any) {
	r.t.Helper()
	if err := r.Commit(k, fields); err != nil {
		r.t.Fatal(err)
	}
}

// entry returns a component's health.
func (r *running) entry(component string) health.Entry {
	for _, e := range r.health.List() {
		if e.Component == component {
			return e
		}
	}
	return health.Entry{}
}

// eventually waits for what the journal does by itself.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !f(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// verified is the report of a journal that must be whole.
func verified(t *testing.T, dir string, anchors ...Hash) Report {
	t.Helper()
	r, err := Verify(dir, anchors...)
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK {
		t.Fatalf("the journal is not whole: %v", r.Faults)
	}
	return r
}

// faults are those of a journal that must not be whole.
func faults(t *testing.T, dir string, anchors ...Hash) string {
	t.Helper()
	r, err := Verify(dir, anchors...)
	if err != nil {
		t.Fatal(err)
	}
	if r.OK {
		t.Fatal("the journal is said to be whole")
	}
	var text []string
	for _, f := range r.Faults {
		text = append(text, f.String())
	}
	return strings.Join(text, "\n")
}

// lines reads all lines of a kind; all kinds for an empty one.
func lines(t *testing.T, dir string, k Kind) []Line {
	t.Helper()
	var out []Line
	err := NewReader(dir).Read(func(l *Line, _ []byte) error {
		if k == "" || l.Kind == k {
			out = append(out, *l)
		}
		return nil
	}, func(f Fault) { t.Errorf("unreadable: %v", f) })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// files are the segments of dir in order.
func files(t *testing.T, dir string) []string {
	t.Helper()
	list, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range list {
		out = append(out, s.path)
	}
	return out
}

// small writes a journal of a few lines and returns its only segment.
func small(t *testing.T) (dir, file string, head Hash) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "journal")
	r := run(t, dir, nil)
	for i := range 5 {
		r.commit(KindOperator, map[string]any{"method": "ProductGrant", "number": i, "text": "<&>\n"})
	}
	r.stop()
	return dir, files(t, dir)[0], r.Head().Hash
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
