package recorder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// checking looks once at all that was recorded before this start, and afterwards whether the damaged segments are still there.
type checking struct {
	done chan struct{}
}

func (c *checking) wait() { <-c.done }

// startCheck begins to check, beside the recording. It takes a segment that the ring removes meanwhile for gone, not damaged.
func (r *Recorder) startCheck(ctx context.Context) *checking {
	c := &checking{done: make(chan struct{})}
	// Before anything is written: what is being written is not whole and no damage.
	list, err := listSegments(r.cfg.Dir)
	if err != nil {
		list = nil // whoever writes there says what is wrong with it
	}
	go func() {
		defer close(c.done)
		r.check(ctx, list)
	}()
	return c
}

func (r *Recorder) check(ctx context.Context, list []segment) {
	u, err := newUnpacker()
	if err != nil {
		return // unreachable: its options are constants
	}
	defer u.close()
	damaged := map[uint64]uint64{} // segment → pieces that cannot be read
	torn := 0
	for _, s := range list {
		if ctx.Err() != nil {
			return
		}
		for _, skip := range checkSegment(u, r.cfg.Dir, s.number) {
			if skip.Torn {
				torn++
				continue
			}
			r.cfg.Log.Warn("part of what was recorded cannot be read", "path", filepath.Join(r.cfg.Dir, skip.Segment), "offset", skip.Offset, "reason", skip.Reason)
			damaged[s.number]++
		}
	}
	r.stats.torn.Store(uint64(torn))
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		r.reportDamage(damaged, torn)
		if len(damaged) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.forgetRemoved(damaged)
	}
}

// checkSegment returns what of a segment cannot be read; nothing for one that is gone.
func checkSegment(u *unpacker, dir string, number uint64) []Skip {
	name := segmentName(number)
	f, size, err := openSegment(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []Skip{{Segment: name, Reason: err.Error()}}
	}
	defer f.Close()
	spans, skips, err := scanSegment(f, size, name)
	if err != nil {
		skips = append(skips, Skip{Segment: name, Reason: err.Error()})
	}
	for i := range spans {
		if _, err := u.frame(f, &spans[i]); err != nil {
			skips = append(skips, Skip{Segment: name, Offset: spans[i].at, Bytes: spans[i].size(), Reason: err.Error()})
		}
	}
	return skips
}

// forgetRemoved takes out of damaged what the ring, or the operator, removed.
func (r *Recorder) forgetRemoved(damaged map[uint64]uint64) {
	list, err := listSegments(r.cfg.Dir)
	if err != nil {
		return
	}
	there := map[uint64]bool{}
	for _, s := range list {
		there[s.number] = true
	}
	for n := range damaged {
		if !there[n] {
			delete(damaged, n)
		}
	}
}

func (r *Recorder) reportDamage(damaged map[uint64]uint64, torn int) {
	var pieces, oldest uint64
	for n, k := range damaged {
		pieces += k
		if oldest == 0 || n < oldest {
			oldest = n
		}
	}
	r.stats.damaged.Store(pieces)
	var damage, end string
	if pieces > 0 {
		damage = fmt.Sprintf("%d damaged pieces in %d segments, the first in %s", pieces, len(damaged), segmentName(oldest))
	}
	if torn > 0 {
		end = fmt.Sprintf("the end of %d earlier segments was not written whole", torn)
	}
	r.state.found(damage, end)
	r.state.tell(r.cfg.Now())
}
