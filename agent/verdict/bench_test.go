package verdict

import (
	"fmt"
	"testing"

	"bailey/agent/event"
)

// loop asks one question and lets n products allow it, without anything that is not the engine's.
func loop(tb testing.TB, n int) func() {
	var numbers []int
	for i := range n {
		numbers = append(numbers, i)
	}
	b := newBench(tb, live(numbers...), func(c *Config) { c.Outcome = nil })
	b.k.quiet, b.p.quiet = true, true
	b.p.onSend = func(s sent) {
		for _, i := range numbers {
			if err := b.Answer(i, s.id, false, false); err != nil {
				tb.Fatal(err)
			}
		}
	}
	q := b.k.question(7)
	file, process := q.File, q.Process
	return func() {
		q.Reset()
		q.Kind, q.Source, q.File, q.Process = event.Exec, b.k, file, process
		b.Ask(q)
		if !q.Answered() {
			tb.Fatal("question is not answered")
		}
	}
}

func BenchmarkAskAnswer(b *testing.B) {
	for _, n := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("products_%d", n), func(b *testing.B) {
			once := loop(b, n)
			b.ReportAllocs()
			for b.Loop() {
				once()
			}
		})
	}
}

func TestAskAllocatesNothing(t *testing.T) {
	for _, n := range []int{1, 8} {
		once := loop(t, n)
		once()
		if allocs := testing.AllocsPerRun(1000, once); allocs != 0 {
			t.Errorf("%d products: %v allocations per question", n, allocs)
		}
	}
}
