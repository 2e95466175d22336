package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"bailey/agent/event"
)

func in(ns uint64, pid uint32) *event.Process {
	return &event.Process{Key: event.ProcessKey{PID: pid, Start: 1}, MountNamespace: ns}
}

func TestRescanLooksAtNewNamespaces(t *testing.T) {
	own := newRescan().own
	if own == 0 {
		t.Fatal("the own mount namespace is not known")
	}
	for _, c := range []struct {
		name string
		do   func(r *rescan)
		want int // each new namespace: one look at once, one later
	}{
		{"own", func(r *rescan) { r.saw(in(own, 1)) }, 0},
		{"unknown", func(r *rescan) { r.saw(in(0, 1)) }, 0},
		{"new", func(r *rescan) { r.saw(in(7, 1)) }, 2},
		{"known", func(r *rescan) { r.saw(in(7, 1)); time.Sleep(time.Second); r.saw(in(7, 2)) }, 2},
		{"two", func(r *rescan) { r.saw(in(7, 1)); time.Sleep(time.Second); r.saw(in(8, 2)) }, 4},
		{"number_reused", func(r *rescan) {
			r.saw(in(7, 1))
			time.Sleep(time.Second)
			r.ended(in(7, 2)) // not the first
			r.saw(in(7, 3))
			time.Sleep(time.Second)
			r.ended(in(7, 1))
			r.saw(in(7, 4))
		}, 4},
		{"storm", func(r *rescan) {
			for i := range uint32(2000) {
				r.saw(in(uint64(100+i), i))
				time.Sleep(time.Millisecond)
			}
		}, 42}, // 2 s in steps of 50 ms, and what follows
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRescan()
				ctx, cancel := context.WithCancel(t.Context())
				looks, done := 0, make(chan error)
				go func() { done <- r.run(ctx, func() { looks++ }) }()
				c.do(r)
				time.Sleep(time.Minute)
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("run ended with %v", err)
				}
				if looks > c.want || looks < c.want-2 || c.want < 10 && looks != c.want {
					t.Errorf("%d looks, want %d", looks, c.want)
				}
			})
		})
	}
}

func TestRescanRemembersABoundedNumber(t *testing.T) {
	t.Parallel()
	r := newRescan()
	for i := range uint32(3 * maxNamespaces) {
		r.saw(in(uint64(i)+1, i))
	}
	if len(r.seen) > maxNamespaces {
		t.Errorf("%d are remembered", len(r.seen))
	}
}
