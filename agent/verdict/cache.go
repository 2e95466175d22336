package verdict

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"bailey/agent/event"
)

// key is the identity of a file's content, as far as metadata can tell, and the kind of question.
type key struct {
	dev, ino uint64
	ctime    int64
	size     int64
	kind     event.Kind
}

// How long after a file's last change its ctime may equal that of a later change. The kernel stamps files with the time of
// its last tick (at most 10 ms ago before the multigrain timestamps of 6.13), ten times that for good measure; file systems
// that keep whole seconds only, or even ones (vfat, ext4 with small inodes), are known by their ctime.
const (
	racy       = 100 * time.Millisecond
	racyCoarse = 2100 * time.Millisecond
)

// keyOf returns q's key; the zero key when the file's identity is unknown or too young to tell from a later one.
func keyOf(q *event.Question, wall int64) key {
	f := &q.File
	margin := racy
	if f.CTime%int64(time.Second) == 0 {
		margin = racyCoarse
	}
	if f.Ino == 0 || wall-f.CTime < int64(margin) {
		return key{}
	}
	return key{dev: f.Dev, ino: f.Ino, ctime: f.CTime, size: f.Size, kind: q.Kind}
}

func (k key) valid() bool { return k.kind != 0 }

// The cache's geometry: sets of a few ways, each shard of sets with its own lock.
const (
	cacheWays   = 8
	cacheShards = 64
)

// entry is one cached verdict.
type entry struct {
	key   key
	epoch uint64
	// by holds the live products that allowed, or those that denied. An allow serves a question only if every live product
	// of that question is in it: the same file may be reached by a path that is in another product's scope.
	by    event.ProductSet
	allow bool
	whole bool // the kernel may be told
	used  bool // since the clock hand passed
}

type cacheSet struct {
	entries [cacheWays]entry
	hand    uint8
}

// cache holds verdicts that depend on the file alone. Bounded: a full set forgets the entry that was not used lately, and
// forgetting only means asking again. Safe for concurrent use.
type cache struct {
	seed  uint64
	sets  []cacheSet
	locks [cacheShards]struct {
		sync.Mutex
		_ [56]byte // a cache line each
	}
	hits, misses, inserts, evictions, forgotten atomic.Uint64
}

func newCache(entries int) *cache {
	n := cacheShards
	for n*cacheWays < entries {
		n *= 2
	}
	return &cache{seed: rand.Uint64(), sets: make([]cacheSet, n)}
}

// hash mixes the file's identity with a seed of this start, so that nobody can choose files that share a set.
func (c *cache) hash(dev, ino uint64) uint64 {
	h := (ino ^ c.seed) * 0x9e3779b97f4a7c15
	h ^= h>>32 ^ dev
	h *= 0xd6e8feb86659fd93
	return h ^ h>>32
}

func (c *cache) lock(h uint64) (*cacheSet, *sync.Mutex) {
	i := h & uint64(len(c.sets)-1)
	m := &c.locks[i%cacheShards].Mutex
	m.Lock()
	return &c.sets[i], m
}

// get looks a verdict up that holds for a question which asks the live products, of which mayDeny may deny.
func (c *cache) get(k key, epoch uint64, live, mayDeny event.ProductSet) (found entry, ok bool) {
	set, m := c.lock(c.hash(k.dev, k.ino))
	defer m.Unlock()
	for i := range set.entries {
		e := &set.entries[i]
		if e.key != k || e.epoch != epoch {
			continue
		}
		if e.allow && live&^e.by != 0 || !e.allow && mayDeny&e.by == 0 {
			continue
		}
		e.used = true
		c.hits.Add(1)
		return *e, true
	}
	c.misses.Add(1)
	return entry{}, false
}

// put stores a verdict, in the place of an equal, an outdated or the least used one.
func (c *cache) put(n entry, current uint64) {
	if n.epoch != current {
		return
	}
	set, m := c.lock(c.hash(n.key.dev, n.key.ino))
	defer m.Unlock()
	n.used = true
	c.inserts.Add(1)
	victim := -1
	for i := range set.entries {
		e := &set.entries[i]
		if e.key == n.key {
			*e = n
			return
		}
		if victim < 0 && (!e.key.valid() || e.epoch != current) {
			victim = i
		}
	}
	if victim < 0 {
		victim = set.evict()
		c.evictions.Add(1)
	}
	set.entries[victim] = n
}

func (s *cacheSet) evict() int {
	for {
		i := int(s.hand)
		s.hand = (s.hand + 1) % cacheWays
		if !s.entries[i].used {
			return i
		}
		s.entries[i].used = false
	}
}

// forget drops all that is known of a file.
func (c *cache) forget(dev, ino uint64) {
	set, m := c.lock(c.hash(dev, ino))
	defer m.Unlock()
	for i := range set.entries {
		if e := &set.entries[i]; e.key.dev == dev && e.key.ino == ino && e.key.valid() {
			*e = entry{}
			c.forgotten.Add(1)
		}
	}
}

// size counts the entries of the epoch.
func (c *cache) size(epoch uint64) (n int) {
	for i := range c.sets {
		m := &c.locks[i%cacheShards].Mutex
		m.Lock()
		for j := range c.sets[i].entries {
			if e := &c.sets[i].entries[j]; e.key.valid() && e.epoch == epoch {
				n++
			}
		}
		m.Unlock()
	}
	return n
}
