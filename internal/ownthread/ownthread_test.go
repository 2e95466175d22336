package ownthread_test

import (
	"runtime"
	"sync"
	"testing"

	"bailey/internal/leakcheck"
	"bailey/internal/ownthread"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestEveryStayHasAProcessorOfItsOwn(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	threads := make([]*ownthread.Thread, 8)
	for i := range threads {
		wg.Go(func() { threads[i] = ownthread.Enter() })
	}
	wg.Wait()
	if n := runtime.GOMAXPROCS(0); n != before+len(threads) {
		t.Errorf("%d processors while %d are entered, %d before", n, len(threads), before)
	}
	for _, th := range threads {
		wg.Go(th.Leave)
	}
	wg.Wait()
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("%d processors after all have left, %d before", n, before)
	}
}

func TestYieldDoesNotAllocate(t *testing.T) {
	th := ownthread.Enter()
	defer th.Leave()
	if n := testing.AllocsPerRun(1000, th.Yield); n != 0 {
		t.Errorf("Yield allocates %v times", n)
	}
}
