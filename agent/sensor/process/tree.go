package process

import (
	"sync"
	"sync/atomic"
	"time"

	"bailey/agent/event"
)

const (
	shardCount   = 64
	maxAncestors = 256             // how long a chain of parents may get before its old end is forgotten
	keepExited   = 2 * time.Minute // so that late events still find who did it
	maxExited    = 8192
)

// node is one process in the tree. A node holds its parent, so the ancestors of a living process stay known however long
// ago they ended.
type node struct {
	proc   atomic.Pointer[event.Process]
	parent atomic.Pointer[node]
	cell   atomic.Uint32 // the kernel's cell after the last record that was applied
	depth  int           // at most the number of ancestors; for the writer

	ended   atomic.Bool
	said    bool   // its exit was emitted; for the writer
	settled uint64 // records before this time say nothing new about the node; for the writer
}

// tree is every living process and those that ended a short while ago. Reading is safe for concurrent use; only one
// goroutine at a time may change it.
type tree struct {
	shards [shardCount]shard

	exited []exitedNode // oldest first; for the writer
}

type shard struct {
	mu    sync.RWMutex
	byPID map[uint32]*node // the newest process of each pid
	byKey map[event.ProcessKey]*node
}

type exitedNode struct {
	node *node
	time uint64
}

func newTree() *tree {
	t := &tree{}
	for i := range t.shards {
		t.shards[i].byPID = make(map[uint32]*node)
		t.shards[i].byKey = make(map[event.ProcessKey]*node)
	}
	return t
}

func (t *tree) shard(pid uint32) *shard { return &t.shards[pid%shardCount] }

// newest returns the newest process with a pid, ended or not, nil if there is none.
func (t *tree) newest(pid uint32) *node {
	s := t.shard(pid)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byPID[pid]
}

// find returns the process with a key, ended or not, nil if it is not known or no longer kept.
func (t *tree) find(key event.ProcessKey) *node {
	s := t.shard(key.PID)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byKey[key]
}

// living returns all processes that have not ended.
func (t *tree) living() []*node {
	var out []*node
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		for _, n := range s.byPID {
			if !n.ended.Load() {
				out = append(out, n)
			}
		}
		s.mu.RUnlock()
	}
	return out
}

// put adds a process or replaces what is known of it. Another process with its pid has ended, said or not; if that one
// started later, this one has.
func (t *tree) put(p *event.Process, cell uint16, now uint64) *node {
	s := t.shard(p.Key.PID)
	s.mu.Lock()
	old := s.byPID[p.Key.PID]
	n := s.byKey[p.Key]
	if n == nil {
		n = &node{}
		s.byKey[p.Key] = n
	}
	n.proc.Store(p)
	n.cell.Store(uint32(cell))
	if old != nil && old != n && old.proc.Load().Key.Start > p.Key.Start {
		s.mu.Unlock()
		t.end(n, now)
		return n
	}
	s.byPID[p.Key.PID] = n
	s.mu.Unlock()
	if old != nil && old != n {
		t.end(old, now)
	}
	return n
}

// adopt makes parent the parent of n.
func (t *tree) adopt(n, parent *node) {
	if parent == nil || parent == n {
		return
	}
	n.parent.Store(parent)
	n.depth = parent.depth + 1
	if n.depth < maxAncestors {
		return
	}
	// A chain of processes that each fork and end would grow for ever: forget its older half.
	last := n
	for range maxAncestors / 2 {
		up := last.parent.Load()
		if up == nil {
			break
		}
		last = up
	}
	last.parent.Store(nil)
	n.depth = maxAncestors / 2
}

// end marks n as ended and forgets those that ended long ago or too many ago.
func (t *tree) end(n *node, now uint64) {
	if n.ended.Swap(true) {
		return
	}
	t.exited = append(t.exited, exitedNode{n, now})
	t.forget(now)
}

// forget drops ended processes that need not be kept any longer.
func (t *tree) forget(now uint64) {
	for len(t.exited) > 0 {
		oldest := t.exited[0]
		if len(t.exited) <= maxExited && oldest.time+uint64(keepExited) > now {
			return
		}
		t.remove(oldest.node)
		t.exited[0] = exitedNode{} // the array behind the slice must not hold it
		t.exited = t.exited[1:]
	}
}

// clear forgets all.
func (t *tree) clear() {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		clear(s.byPID)
		clear(s.byKey)
		s.mu.Unlock()
	}
	t.exited = nil
}

// closePIDs makes newest forget the processes that have ended: nobody saw whom their pids were given to since.
func (t *tree) closePIDs() {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for pid, n := range s.byPID {
			if n.ended.Load() {
				delete(s.byPID, pid)
			}
		}
		s.mu.Unlock()
	}
}

func (t *tree) remove(n *node) {
	key := n.proc.Load().Key
	s := t.shard(key.PID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byKey[key] == n {
		delete(s.byKey, key)
	}
	if s.byPID[key.PID] == n {
		delete(s.byPID, key.PID)
	}
}

// ancestors returns the parents of n, its own first.
func (n *node) ancestors() []*event.Process {
	var out []*event.Process
	for up := n.parent.Load(); up != nil && len(out) < maxAncestors; up = up.parent.Load() {
		out = append(out, up.proc.Load())
	}
	return out
}
