package process

import (
	"testing"

	"bailey/agent/event"
)

// A reader may be killed between any two stores: what was dealt with up to the ring's position is there all the same.
func TestLedgerResumesAtTheRingsPosition(t *testing.T) {
	t.Parallel()
	l := ownLedger()
	position := uint64(0)
	for i, kind := range []uint16{recordFork, recordExec, 77, recordExit, recordFork} {
		behind := position + 64
		l.begin(behind)
		before, ok := (&ledger{ledgerPage: l.ledgerPage}).resume(position)
		if !ok || before.sum() != uint64(i) || l.begun <= position {
			t.Errorf("killed in Emit %d: %+v, %v, begun %d", i, before, ok, l.begun)
		}
		l.done(kind, behind)
		// Killed before the ring's position was stored, and after.
		if again, ok := (&ledger{ledgerPage: l.ledgerPage}).resume(position); !ok || again != before {
			t.Errorf("killed before the commit of %d: %+v, %v", i, again, ok)
		}
		if after, ok := (&ledger{ledgerPage: l.ledgerPage}).resume(behind); !ok || after.sum() != uint64(i)+1 {
			t.Errorf("killed after the commit of %d: %+v, %v", i, after, ok)
		}
		position = behind
	}
	if last, ok := l.resume(position); !ok || last.forks != 2 || last.execs != 1 || last.exits != 1 || last.others != 1 {
		t.Errorf("%+v, %v", last, ok)
	}
	if newest, ok := l.resume(position + 8); ok || newest.sum() != 5 {
		t.Errorf("moved by another: %+v, %v", newest, ok)
	}
}

func TestOverlapKnowsEachEventOnce(t *testing.T) {
	t.Parallel()
	const ms = 1_000_000
	p, q := event.ProcessKey{PID: 1, Start: 1}, event.ProcessKey{PID: 2, Start: 2}
	exec := func(key event.ProcessKey, ino, at uint64) *record {
		r := &record{kind: recordExec, time: at, who: who{key: key}}
		r.image.file.Ino = ino
		return r
	}
	o := &overlap{
		forks: map[event.ProcessKey]bool{p: true}, exits: map[event.ProcessKey]bool{q: true},
		execs: map[execution][]uint64{executionOf(exec(p, 7, 0)): {100 * ms, 101 * ms}}, until: 150 * ms,
	}
	for _, c := range []struct {
		name string
		r    *record
		want bool
	}{
		{"fork", &record{kind: recordFork, time: 100 * ms, child: who{key: p}}, true},
		{"other_fork", &record{kind: recordFork, time: 100 * ms, child: who{key: q}}, false},
		{"exit", &record{kind: recordExit, time: 100 * ms, who: who{key: q}}, true},
		{"other_exit", &record{kind: recordExit, time: 100 * ms, who: who{key: p}}, false},
		{"exec_of_another_file", exec(p, 8, 100*ms), false},
		{"exec_by_another", exec(q, 7, 100*ms), false},
		{"exec", exec(p, 7, 100*ms+5), true},
		{"same_exec_again", exec(p, 7, 101*ms+5), true},
		{"one_more_exec", exec(p, 7, 102*ms), false},
		{"exec_later", exec(p, 7, 140*ms), false},
		{"fork_after_the_overlap", &record{kind: recordFork, time: 151 * ms, child: who{key: p}}, false},
	} {
		if got := o.has(c.r); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if (*overlap)(nil).has(exec(p, 7, 100*ms)) {
		t.Error("no overlap has an exec")
	}
}

func TestGenerationNames(t *testing.T) {
	t.Parallel()
	name := generationName("0123456789abcdef", 0x1f)
	if g, ok := parseGeneration(name); !ok || g.schema != "0123456789abcdef" || g.created != 0x1f {
		t.Errorf("%s is %+v, %v", name, g, ok)
	}
	for _, bad := range []string{"", "reader", "process-", "process-x", "process-x-", "process-x-0", "process-x-zz", "process-x-01", "process-x-1-2", "new-1", "old-1"} {
		if g, ok := parseGeneration(bad); ok {
			t.Errorf("%q is %+v", bad, g)
		}
	}
}

// A process whose pid has gone to a newer one is put into the tree as ended and does not take the pid back.
func TestTreePutsAnOlderProcessBehind(t *testing.T) {
	t.Parallel()
	tr := newTree()
	newer := tr.put(proc(5, 20, "newer"), 0, 21)
	older := tr.put(proc(5, 10, "older"), 0, 22)
	if tr.newest(5) != newer || newer.ended.Load() || !older.ended.Load() || tr.find(event.ProcessKey{PID: 5, Start: 10}) != older {
		t.Errorf("newest %+v; newer ended %v, older ended %v", tr.newest(5), newer.ended.Load(), older.ended.Load())
	}
}
