// Command inside measures in a virtual machine what an operation costs in each lane: one state of the machine after the other, on one
// filesystem. The guest's init starts it; its report is read by the host. It judges nothing.
//
// Invariant: what it says was measured by a process of its own that did nothing else, in a machine that had come to rest.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	"bailey/test/vm/bench/figure"
)

// options are the command line.
type options struct {
	lanes, tokens string
	disk          string
	batches       int
	builds        int
	work, hooks   bool
	auditor       string
}

func main() {
	var o options
	flag.StringVar(&o.lanes, "lanes", "none", "the lanes, in this order")
	flag.StringVar(&o.tokens, "tokens", "", "a file with a token for each lane with a guard, one on a line")
	flag.StringVar(&o.disk, "disk", "/disk", "where the filesystem that is worked on is mounted")
	flag.IntVar(&o.batches, "batches", 11, "how often each operation is measured")
	flag.IntVar(&o.builds, "builds", 3, "how often go build is measured, where something is promised of it")
	flag.BoolVar(&o.work, "work", false, "internal: this is the process that works")
	flag.BoolVar(&o.hooks, "hooks", false, "internal: count the calls of BPF programs too")
	flag.StringVar(&o.auditor, "auditor", "", "internal: this is the reader of the kernel's audit of these calls")
	flag.Parse()
	var err error
	switch {
	case o.work:
		err = workHere(o.disk, o.batches, o.hooks)
	case o.auditor != "":
		err = audit(o.auditor)
	default:
		err = measureAll(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		os.Exit(1)
	}
}

// measureAll measures all lanes and reports each when it is measured.
func measureAll(o options) error {
	w, err := newWorld(o)
	if err != nil {
		return fmt.Errorf("prepare the filesystem: %w", err)
	}
	for name := range strings.SplitSeq(o.lanes, ",") {
		l, err := w.lane(name)
		if err != nil {
			return err
		}
		figures, err := w.measure(l)
		if err != nil {
			return fmt.Errorf("lane %s: %w", name, err)
		}
		figures.Name = name
		text, err := json.Marshal(figures)
		if err != nil {
			return err
		}
		fmt.Println(figure.Line + string(text))
	}
	return nil
}
