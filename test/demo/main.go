// Command demo is `make run`: it starts the agent on this machine with both products, shows the live view and what to try in
// a second terminal, and takes everything away again. It installs nothing permanently and is not the way to run Bailey.
//
// Invariant: whatever happens, nothing that answers the kernel's questions outlives this program or keeps answering late: a
// dead-man process kills the agent when this program ends or when the machine cannot start programs any more.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

type options struct {
	bailey, products string
	dir              string
	duration         time.Duration
	scratchOnly      bool
	deadman          int
}

func main() {
	var o options
	flag.StringVar(&o.bailey, "bailey", "dist/bailey", "the agent")
	flag.StringVar(&o.products, "products", "dist/products", "product folders")
	flag.StringVar(&o.dir, "dir", "/var/lib/bailey-demo", "where everything of the demo is kept; removed at the end")
	flag.DurationVar(&o.duration, "for", 0, "try everything, end by itself after this long, and fail if something did not work")
	flag.BoolVar(&o.scratchOnly, "scratch-only", false, "watch the scratch directory alone instead of the whole machine")
	flag.IntVar(&o.deadman, "deadman", 0, "internal: kill this process when standard input is silent")
	flag.Parse()
	if o.deadman != 0 {
		watchPulse(bufio.NewReader(os.Stdin), o.deadman)
		return
	}
	runtime.LockOSThread() // children die with this thread
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}

// run starts everything, shows it until the operator or the time ends it, and undoes what it did in reverse order.
func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root, because the agent asks the kernel to wait for its answers: sudo make run")
	}
	d := &demo{o: o}
	defer func() {
		undone := d.undo()
		if err == nil {
			err = undone
		}
	}()
	if err := d.start(ctx); err != nil {
		return err
	}
	d.explain(os.Stdout)
	if o.duration == 0 {
		return d.show(ctx)
	}
	return d.rehearse(ctx)
}
