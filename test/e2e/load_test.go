package e2e

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bailey/test/rig"
)

// TestParallelExecs is the load: four products, one always late and one killed every second.
func TestParallelExecs(t *testing.T) {
	const (
		total    = 10_000
		workers  = 64
		deadline = 500 * time.Millisecond
	)
	a := startAgent(t, fmt.Sprintf("[questions]\nexec_deadline = %q\n", deadline))
	for _, s := range []rig.Spec{
		{Name: "good"}, {Name: "other"},
		{Name: "late", Settings: map[string]string{"delay": "600ms"}, Limits: "pids = 512\n"},
		{Name: "dying"},
	} {
		s.Questions = "exec"
		a.Install(s)
	}
	programs := make([]string, 50)
	for i := range programs {
		programs[i] = a.Program(fmt.Sprintf("program-%d", i))
	}
	execEvents, verdicts := a.Tap("exec"), a.Tap("verdict")
	before := a.Status().GetQuestions()

	stop := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				for _, p := range a.Status().GetProducts() {
					if p.GetName() == "dying" && p.GetPid() > 0 {
						_ = syscall.Kill(int(p.GetPid()), syscall.SIGKILL)
					}
				}
			}
		}
	})
	var next, failed atomic.Int64
	var longest atomic.Int64
	var load sync.WaitGroup
	for range workers {
		load.Go(func() {
			for n := next.Add(1); n <= total; n = next.Add(1) {
				start := time.Now()
				if err := execs(programs[n%int64(len(programs))]); err != nil {
					failed.Add(1)
					t.Errorf("exec %d: %v", n, err)
				}
				took := int64(time.Since(start))
				for old := longest.Load(); took > old && !longest.CompareAndSwap(old, took); old = longest.Load() {
				}
			}
		})
	}
	load.Wait()
	close(stop)
	killer.Wait()

	t.Logf("longest exec %s, %d failed", time.Duration(longest.Load()), failed.Load())
	a.Eventually("every exec was one question, and every question has its outcome", 10*time.Second, func() error {
		after := a.Status().GetQuestions()
		asked := after.GetAsked() - before.GetAsked()
		var sum uint64
		for reason, n := range after.GetByReason() {
			sum += n - before.GetByReason()[reason]
		}
		if asked != total || sum != asked || after.GetInFlight() != 0 {
			return fmt.Errorf("%d execs, %d questions, %d still in flight, %d recorded outcomes: %v", total, asked, after.GetInFlight(), sum, after.GetByReason())
		}
		return nil
	})
	a.Eventually("every question has one recorded outcome", 10*time.Second, func() error {
		if n := len(verdicts.All()); n != total {
			return fmt.Errorf("%d verdict events for %d questions", n, total)
		}
		return nil
	})
	// An exec takes longer than its question when 64 workers share two cores; the question is what the deadline is about.
	var slowest time.Duration
	outcomes := map[string]int{}
	seen := map[uint64]bool{}
	for _, e := range verdicts.All() {
		v := e.GetVerdict()
		if seen[v.GetQuestionId()] {
			t.Errorf("question %d has two recorded outcomes", v.GetQuestionId())
		}
		seen[v.GetQuestionId()] = true
		slowest = max(slowest, time.Duration(v.GetLatency()))
		for _, p := range v.GetAnswers() {
			outcomes[p.GetProduct()+" "+p.GetOutcome()]++
		}
	}
	t.Logf("slowest answer to the kernel %s; %v", slowest, outcomes)
	if slowest > deadline {
		t.Errorf("the kernel waited %s for an answer with a deadline of %s", slowest, deadline)
	}
	a.Eventually("every exec is an event", 10*time.Second, func() error {
		var n int
		for _, e := range execEvents.All() {
			if strings.HasPrefix(e.GetProcess().GetExecutable().GetPath(), a.Scratch) {
				n++
			}
		}
		if n != total {
			return fmt.Errorf("%d exec events for %d execs", n, total)
		}
		return nil
	})
}
