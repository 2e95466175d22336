package script_test

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"bailey/agent/control/controltest"
	"bailey/agent/event"
	"bailey/agent/product/link"
	"bailey/agent/recorder"
	"bailey/internal/boottime"

	"github.com/rogpeppe/go-internal/testscript"
)

// reel is a tap that has the scene, and has dropped seven events before its end.
type reel struct{ events []*event.Event }

func (r *reel) Next(ctx context.Context) (*event.Event, uint64, error) {
	<-ctx.Done()
	return nil, 0, ctx.Err()
}

func (r *reel) Poll() (*event.Event, uint64, bool) {
	if len(r.events) == 0 {
		return nil, 0, false
	}
	e := r.events[0]
	r.events = r.events[1:]
	if len(r.events) == 0 {
		return e, 7, true
	}
	return e, 0, true
}

func (r *reel) Dropped() uint64 { return 7 }

func (r *reel) Close() {}

// record makes the real recorder record the scene twice, as two runs of an agent: record STATE.
func record(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: record STATE")
	}
	for range 2 {
		r, err := recorder.New(recorder.Config{
			Dir: filepath.Join(ts.MkAbs(args[0]), recorder.DirName), Tap: &reel{scene(controltest.New())}, Encoder: new(link.Codec),
			Now: boottime.Now, Wall: time.Now, Started: boottime.Now(), Version: "9.9.9",
		})
		ts.Check(err)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.Run(ctx); err != context.Canceled { //nolint:errorlint // it is this very one
			ts.Fatalf("record: %v", err)
		}
	}
}

// damage flips a bit in the first recorded segment: damage STATE.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: damage STATE")
	}
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), recorder.DirName, "*.segment"))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("nothing is recorded in %s", args[0])
	}
	content, err := os.ReadFile(files[0])
	ts.Check(err)
	content[len(content)-5] ^= 1
	ts.Check(os.WriteFile(files[0], content, 0o600))
}
