package process

import (
	"sync"
	"testing"

	"bailey/agent/event"
)

func proc(pid uint32, start uint64, comm string) *event.Process {
	return &event.Process{Key: event.ProcessKey{PID: pid, Start: start}, Comm: comm}
}

func TestTreeEndsTheOldOwnerOfAPID(t *testing.T) {
	t.Parallel()
	tree := newTree()
	first := tree.put(proc(10, 1, "first"), 0, 1)
	second := tree.put(proc(10, 2, "second"), 0, 2)
	if !first.ended.Load() || second.ended.Load() || tree.newest(10) != second || tree.find(first.proc.Load().Key) != first {
		t.Error("the pid is not the second's, or the first is forgotten at once")
	}
	if living := tree.living(); len(living) != 1 || living[0] != second {
		t.Errorf("%d are living", len(living))
	}
}

func TestTreeForgetsInTime(t *testing.T) {
	t.Parallel()
	tree := newTree()
	n := tree.put(proc(10, 1, "short"), 0, 1)
	tree.end(n, 1)
	child := tree.put(proc(11, 2, "child"), 0, 2)
	tree.adopt(child, n)
	tree.forget(uint64(keepExited))
	if tree.newest(10) == nil {
		t.Error("forgotten too early")
	}
	tree.forget(uint64(keepExited) + 1)
	if tree.newest(10) != nil || tree.find(n.proc.Load().Key) != nil {
		t.Error("not forgotten")
	}
	if up := child.ancestors(); len(up) != 1 || up[0].Comm != "short" {
		t.Errorf("the living child's parent: %v", up)
	}
}

func TestTreeForgettingLeavesTheNextOwner(t *testing.T) {
	t.Parallel()
	tree := newTree()
	tree.put(proc(10, 1, "first"), 0, 1)
	second := tree.put(proc(10, 2, "second"), 0, 2)
	tree.forget(uint64(keepExited) * 3)
	if tree.newest(10) != second {
		t.Error("forgetting the first took the pid from the second")
	}
}

func TestTreeIsBounded(t *testing.T) {
	t.Parallel()
	tree := newTree()
	parent := tree.put(proc(1, 1, "init"), 0, 1)
	longest := 0
	for i := range uint64(5 * maxExited) {
		// Each process forks the next and ends: the oldest trick to grow a tree.
		n := tree.put(proc(uint32(2+i%30000), i+2, "worm"), 0, 1)
		tree.adopt(n, parent)
		tree.end(parent, 1)
		parent = n
		if i%997 == 0 {
			longest = max(longest, len(n.ancestors()))
		}
	}
	kept := 0
	for i := range tree.shards {
		kept += len(tree.shards[i].byKey)
	}
	if kept > maxExited+2 {
		t.Errorf("%d processes are kept", kept)
	}
	if longest > maxAncestors {
		t.Errorf("a process has %d ancestors", longest)
	}
	if got := len(parent.ancestors()); got < maxAncestors/2-1 {
		t.Errorf("the last has only %d ancestors", got)
	}
}

func TestTreeIsReadWhileItChanges(t *testing.T) {
	t.Parallel()
	tree := newTree()
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for pid := range uint32(50) {
					if n := tree.newest(pid); n != nil && n.proc.Load().Key.PID != pid {
						t.Errorf("pid %d is %v", pid, n.proc.Load().Key)
					}
				}
				tree.living()
			}
		})
	}
	var last *node
	for i := range uint64(20_000) {
		n := tree.put(proc(uint32(i%50), i, "x"), 0, i)
		tree.adopt(n, last)
		last = n
	}
	close(stop)
	readers.Wait()
}

func TestCellsSetOnlyWhatWasSeen(t *testing.T) {
	t.Parallel()
	c, err := mapCells(-1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close() //nolint:errcheck // memory of the test
	const pid = 1001
	c.put(pid-1, 0xffff)
	c.put(pid, 5<<8)
	seen := c.get(pid)
	if !c.set(pid, seen, cellNeverAsk) || c.get(pid) != 5<<8|cellNeverAsk {
		t.Errorf("cell is %#x", c.get(pid))
	}
	c.put(pid, 6<<8) // it executed another program
	if c.set(pid, seen, cellNeverAsk) || c.get(pid) != 6<<8 {
		t.Errorf("a flag for the program before was set: %#x", c.get(pid))
	}
	if c.get(pid-1) != 0xffff {
		t.Errorf("the neighbour is %#x", c.get(pid-1))
	}
	for _, none := range []uint32{0, cellCount, 1<<32 - 1} {
		c.mark(none, cellPlatform)
		if c.get(none) != 0 || c.set(none, 0, cellPlatform) {
			t.Errorf("pid %d has a cell", none)
		}
	}
	c.mark(cellCount-1, cellPlatform)
	if c.get(cellCount-1) != cellPlatform {
		t.Error("the last pid has no cell")
	}
}
