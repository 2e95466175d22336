package agent

import (
	"context"

	"bailey/agent/control"
	controlv1 "bailey/api/control/v1"
)

// cache shows and clears the verdict cache for the operator.
type cache Agent

var _ control.Cache = (*cache)(nil)

// Show describes the cache.
func (c *cache) Show(context.Context) (*controlv1.Cache, error) { return c.show(), nil }

func (c *cache) show() *controlv1.Cache {
	f, e := c.files.Stats(), c.engine.CacheStats()
	return &controlv1.Cache{
		Enabled: c.cfg.Cache.Enabled, Entries: uint64(e.Entries), Hits: e.Hits,
		Marks: f.CacheSet - min(f.CacheSet, f.CacheTakenBack+f.CacheDropped), Cleared: e.Invalidations,
	}
}

// Clear forgets every verdict, in the agent and in the kernel.
func (c *cache) Clear(context.Context) (uint64, error) {
	n := uint64(c.engine.CacheStats().Entries)
	if err := c.engine.Invalidate("operator"); err != nil {
		return 0, &control.Fault{
			Class: control.Internal, Message: "the kernel's part of the cache could not be cleared", Err: err,
			Hint: "restart the agent: its marks go with it",
		}
	}
	return n, nil
}
