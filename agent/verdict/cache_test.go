package verdict

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
)

func TestCacheAndItsInvalidations(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		ask := func(edit func(*event.Question)) (*event.Question, bool) {
			q := b.k.question(1)
			if edit != nil {
				edit(q)
			}
			before := len(b.p.asked())
			b.Ask(q)
			synctest.Wait()
			asked := len(b.p.asked()) > before
			if asked {
				b.must(t, 0, q, false, true)
			}
			return q, asked
		}
		steps := []struct {
			name  string
			do    func()
			edit  func(*event.Question)
			asked bool
		}{
			{name: "first", asked: true},
			{name: "cached"},
			{name: "other_kind", edit: func(q *event.Question) { q.Kind = event.Open }, asked: true},
			{name: "other_inode", edit: func(q *event.Question) { q.File.Ino = 2 }, asked: true},
			{name: "other_ctime", edit: func(q *event.Question) { q.File.CTime++ }, asked: true},
			{name: "other_size", edit: func(q *event.Question) { q.File.Size++ }, asked: true},
			{name: "written", do: func() { b.Forget(1, 1) }, asked: true},
			{name: "cached_again"},
			{name: "rules_changed", do: func() { _ = b.Invalidate("rules") }, asked: true},
			{name: "cached_once_more"},
			{name: "product_added", do: func() { b.p.voters.Store(live(0, 1)) }, asked: true},
			{name: "too_young", do: func() { b.p.voters.Store(live(0)) }, edit: func(q *event.Question) { q.File.CTime = time.Now().UnixNano() - 1e6 }, asked: true},
			{name: "still_too_young", edit: func(q *event.Question) { q.File.CTime = time.Now().UnixNano() - 1e6 }, asked: true},
			{name: "whole_seconds", edit: func(q *event.Question) { q.File.CTime = time.Now().Truncate(time.Second).UnixNano() - 1e9 }, asked: true},
			{name: "whole_seconds_again", edit: func(q *event.Question) { q.File.CTime = time.Now().Truncate(time.Second).UnixNano() - 1e9 }, asked: true},
			{name: "unknown_file", edit: func(q *event.Question) { q.File.Ino = 0 }, asked: true},
		}
		for _, s := range steps {
			if s.do != nil {
				s.do()
			}
			q, asked := ask(s.edit)
			if asked != s.asked {
				t.Errorf("%s: asked %v", s.name, asked)
			}
			if !asked {
				b.want(t, q, event.Decision{Allow: true, Reason: event.ByCache, CacheFile: true})
			}
			if s.name == "product_added" {
				b.must(t, 1, q, false, true)
			}
		}
	})
}

func TestNoCacheAsksEveryTime(t *testing.T) {
	run(t, live(0), func(c *Config) { c.NoCache = true }, func(t *testing.T, b *bench) {
		for range 3 {
			first, second := b.k.question(1), b.k.question(1)
			b.Ask(first)
			b.Ask(second)
			for _, q := range []*event.Question{first, second} {
				b.must(t, 0, q, false, true)
				b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts})
			}
		}
		if n := len(b.p.asked()); n != 6 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestUnwatchedFileIsAskedEveryTime(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		for range 3 {
			q := b.k.question(1)
			q.Unwatched = true
			b.Ask(q)
			b.must(t, 0, q, false, true)
			b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts})
		}
	})
}

func TestDenyIsCachedButNeverMarked(t *testing.T) {
	run(t, live(0, 1), nil, func(t *testing.T, b *bench) {
		q := b.k.question(1)
		b.Ask(q)
		b.must(t, 1, q, true, true)
		b.want(t, q, event.Decision{Reason: event.ByProducts})
		q = b.k.question(1)
		b.Ask(q)
		b.want(t, q, event.Decision{Reason: event.ByCache})
		if ev := b.events(); len(ev) != 2 {
			t.Errorf("%d outcomes, want one for the product's deny and one for the cached", len(ev))
		}
		// The denier lost its grant: its word must not be used.
		v := live(0, 1)
		v.MayDeny = 1
		b.p.voters.Store(v)
		q = b.k.question(1)
		b.Ask(q)
		b.unanswered(t, q)
		b.must(t, 0, q, false, false)
		b.must(t, 1, q, true, false)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts})
	})
}

func TestScopesAndTheKernelsMark(t *testing.T) {
	run(t, live(0, 1), nil, func(t *testing.T, b *bench) {
		only := event.ProductBit(0)
		b.p.within = func(*event.Question) event.ProductSet { return only }
		q := b.k.question(1)
		b.Ask(q)
		b.must(t, 0, q, false, true)
		// Product 1 would be asked about the same file under another name: the kernel must go on asking.
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts})
		q = b.k.question(1)
		b.Ask(q)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByCache})
		only = 3
		q = b.k.question(1)
		b.Ask(q)
		b.must(t, 0, q, false, true)
		b.must(t, 1, q, false, true)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts, CacheFile: true})
	})
}

func TestAnswersFromBeforeAnInvalidationAreNotKept(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		for name, change := range map[string]func(){
			"invalidated": func() { _ = b.Invalidate("rules") },
			"written":     func() { b.Forget(1, 1) },
		} {
			q := b.k.question(1)
			b.Ask(q)
			change()
			b.must(t, 0, q, false, true)
			b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts})
			q = b.k.question(1)
			b.Ask(q)
			b.unanswered(t, q)
			b.must(t, 0, q, false, false)
			if t.Failed() {
				t.Fatal(name)
			}
		}
	})
}

// An answer that is on its way to the kernel may still set its mark: the flush must come after it.
func TestInvalidateWaitsForAnswersUnderWay(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		arrived, goOn := make(chan struct{}), make(chan struct{})
		b.k.onAnswer = func() {
			close(arrived)
			<-goOn
		}
		q := b.k.question(1)
		b.Ask(q)
		var answered, invalidated sync.WaitGroup
		answered.Go(func() { b.must(t, 0, q, false, true) })
		<-arrived
		done := false
		invalidated.Go(func() {
			_ = b.Invalidate("rules")
			done = true
		})
		time.Sleep(50 * time.Millisecond)
		if done {
			t.Error("flushed while an answer could still set its mark")
		}
		close(goOn)
		answered.Wait()
		invalidated.Wait()
		b.k.onAnswer = nil
		if len(b.k.marks) != 0 {
			t.Error("a mark survived")
		}
	})
}

func TestFailedFlushIsReportedAndTriedAgain(t *testing.T) {
	reg := health.NewRegistry()
	var failure error
	flush := func(c *Config) { c.Health, c.FlushKernel = reg, func() error { return failure } }
	run(t, live(0), flush, func(t *testing.T, b *bench) {
		failure = errors.New("no such group")
		if err := b.Invalidate("rules"); !errors.Is(err, failure) {
			t.Errorf("error %v", err)
		}
		if reg.Worst() != health.Failed {
			t.Error("health does not say so")
		}
		failure = nil
		if err := b.Invalidate("rules"); err != nil || reg.Worst() != health.OK {
			t.Errorf("error %v, health %v", err, reg.Worst())
		}
	})
}
