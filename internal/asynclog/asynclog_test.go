package asynclog_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bailey/internal/asynclog"
	"bailey/internal/leakcheck"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestOrderAndFlushAtClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := asynclog.New(&out, 0)
		var want strings.Builder
		for i := range 1000 {
			fmt.Fprintf(w, "line %d\n", i)
			fmt.Fprintf(&want, "line %d\n", i)
		}
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if out.String() != want.String() {
			t.Errorf("got %d bytes, want %d in order", out.Len(), want.Len())
		}
		fmt.Fprintln(w, "late")
		if w.Dropped() != 1 {
			t.Errorf("a line after Close: %d dropped, want 1", w.Dropped())
		}
	})
}

// gate is a file that stalls until it is opened.
type gate struct {
	open chan struct{}
	out  bytes.Buffer
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	return g.out.Write(p)
}

// TestStalledFileStopsNobody: the file stalls for ever; writing and closing do not.
func TestStalledFileStopsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		w := asynclog.New(g, 100)
		line := []byte(strings.Repeat("x", 9) + "\n")
		_, _ = w.Write(line) // the goroutine takes it, and stalls
		synctest.Wait()
		start := time.Now()
		for range 50 {
			_, _ = w.Write(line)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("50 writes waited %v", took)
		}
		if w.Dropped() != 40 {
			t.Errorf("%d lines dropped, want 40: 10 fit", w.Dropped())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.Close(ctx); err == nil {
			t.Error("Close says that all was written")
		}
		close(g.open)
		synctest.Wait()
		if got := g.out.String(); strings.Count(got, "xxx\n") != 11 || !strings.HasSuffix(got, "count=40\n") {
			t.Errorf("after the stall: %q", got)
		}
	})
}

// TestFullPipe is the real thing (failure class F1): stderr is a pipe that nobody reads, and logging goes on.
func TestFullPipe(t *testing.T) {
	t.Parallel()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, stderr := os.NewFile(uintptr(fds[0]), "reader"), os.NewFile(uintptr(fds[1]), "stderr") // blocking, as stderr is
	w := asynclog.New(stderr, 1<<16)
	log := slog.New(slog.NewTextHandler(w, nil))
	const lines = 5000
	start := time.Now()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range lines {
				log.Info("answered", "event", i)
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("%d lines took %v", 4*lines, took)
	}
	if w.Dropped() == 0 {
		t.Fatal("nothing was dropped: the pipe was not full")
	}
	read := make(chan int)
	go func() { read <- countLines(r) }()
	if err := w.Close(t.Context()); err != nil {
		t.Error(err)
	}
	_ = stderr.Close()
	got := <-read
	_ = r.Close()
	if uint64(got)+w.Dropped() < 4*lines {
		t.Errorf("%d lines read and %d dropped of %d", got, w.Dropped(), 4*lines)
	}
}

func countLines(r io.Reader) int {
	n := 0
	for s := bufio.NewScanner(r); s.Scan(); {
		if strings.Contains(s.Text(), "msg=answered") {
			n++
		}
	}
	return n
}
