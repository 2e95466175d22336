package recorder

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"bailey/agent/product/link"
	"bailey/internal/boottime"

	"golang.org/x/sys/unix"
)

const envVictim = "BAILEY_RECORDER_TEST_VICTIM"

// victim records numbered events for ever and says how many it has written, until it is killed.
func victim(dir string) {
	l := newLane(1 << 15)
	started := boottime.Now()
	r, err := New(Config{Dir: dir, Tap: l, Encoder: new(link.Codec), Now: boottime.Now, Wall: time.Now, Boot: testBoot, Started: started})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() { _ = r.Run(context.Background()) }()
	fmt.Println(started)
	tick := time.NewTicker(2 * time.Millisecond)
	for seq := uint64(1); ; <-tick.C {
		for range 20 {
			l.put(newExec(seq))
			seq++
		}
		fmt.Println(r.Stats().Events)
	}
}

// TestSIGKILLLosesOnlyWhatWasNotWritten kills a recorder again and again on one directory.
func TestSIGKILLLosesOnlyWhatWasNotWritten(t *testing.T) {
	dir := t.TempDir()
	wrote := map[uint64]uint64{} // run → events that it said were written
	for range 12 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), envVictim+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(100+rand.IntN(1500))*time.Millisecond, func() { _ = cmd.Process.Signal(unix.SIGKILL) })
		var run uint64
		for s := bufio.NewScanner(out); s.Scan(); {
			n, err := strconv.ParseUint(s.Text(), 10, 64)
			if err != nil {
				continue // cut by the kill
			}
			if run == 0 {
				run = n
				continue
			}
			wrote[run] = n
		}
		_ = cmd.Wait() // killed
		kill.Stop()
	}
	records, skips := history(t, dir, Query{})
	for _, s := range skips {
		if !s.Torn {
			t.Errorf("damaged: %s", s)
		}
	}
	last := map[uint64]uint64{}
	for _, r := range records {
		if r.Type != Event {
			continue
		}
		if r.Event.Seq != last[r.Run]+1 {
			t.Fatalf("run %d: event %d follows %d", r.Run, r.Event.Seq, last[r.Run])
		}
		last[r.Run] = r.Event.Seq
	}
	total := uint64(0)
	for run, n := range wrote {
		if last[run] < n {
			t.Errorf("run %d wrote %d events, %d are there", run, n, last[run])
		}
		total += n
	}
	if total == 0 || len(wrote) < 10 {
		t.Errorf("%d runs wrote %d events: nothing was tested", len(wrote), total)
	}
	t.Logf("%d runs, %d events written, %d torn ends", len(wrote), total, len(skips))
}
