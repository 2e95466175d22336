package hub_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/agent/hub"
	"bailey/internal/leakcheck"

	"golang.org/x/sys/unix"
)

// relay asks the next question on the thread that answered the last one, as often as it is told: nothing but the round
// trip is in the measured time.
type relay struct {
	p    *path
	q    event.Question
	left int
	done chan struct{}
	took []time.Duration
	last time.Time
}

func (r *relay) Answer(*event.Question, event.Decision) {}

func (r *relay) Release(q *event.Question) {
	now := time.Now()
	r.took, r.last = append(r.took, now.Sub(r.last)), now
	if r.left--; r.left < 0 {
		close(r.done)
		return
	}
	r.ask()
}

func (r *relay) ask() {
	r.p.fill(&r.q, r, 0)
	r.p.engine.Ask(&r.q)
}

// BenchmarkRoundTrip is one question from Ask to the kernel's answer through engine, hub, codec, link and sockets, with
// products in processes of their own. "one" pins all to one CPU.
func BenchmarkRoundTrip(b *testing.B) {
	for _, pinned := range []string{"one", "free"} {
		for _, n := range []int{1, 4, 8} {
			b.Run(fmt.Sprintf("%s/products_%d", pinned, n), func(b *testing.B) {
				p := newPath(b, time.Second, nil)
				for i := range n {
					p.fork(fmt.Sprint("p", i))
				}
				if pinned == "one" {
					defer pin(b)()
				}
				r := &relay{p: p, left: b.N, done: make(chan struct{}), took: make([]time.Duration, 0, b.N+1)}
				b.ReportAllocs()
				b.ResetTimer()
				r.last = time.Now()
				r.ask()
				<-r.done
				b.StopTimer()
				slices.Sort(r.took)
				b.ReportMetric(float64(r.took[len(r.took)/2])/1e3, "µs-p50")
				b.ReportMetric(float64(r.took[len(r.took)*99/100])/1e3, "µs-p99")
			})
		}
	}
}

// BenchmarkEvents is Publish to products in processes of their own; "delivered" is the part that was not dropped.
func BenchmarkEvents(b *testing.B) {
	for _, n := range []int{1, 4} {
		b.Run(fmt.Sprintf("products_%d", n), func(b *testing.B) {
			p := newPath(b, time.Second, nil)
			for i := range n {
				p.fork(fmt.Sprint("p", i))
			}
			e := event.Event{Kind: event.Exit, Process: sampleProcess, Exit: &event.ExitDetail{}}
			b.ReportAllocs()
			for b.Loop() {
				for p.full() {
					runtime.Gosched()
				}
				p.hub.Publish(&e)
			}
			var sent, made uint64
			for _, c := range p.hub.Stats().Clients {
				sent, made = sent+c.Sent+uint64(c.Queued), made+c.Events
			}
			b.ReportMetric(float64(sent)/float64(made), "delivered")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "M/s")
		})
	}
}

// full reports, now and then, whether a queue is nearly full.
func (p *path) full() bool {
	if p.published++; p.published%1024 != 0 {
		return false
	}
	for _, c := range p.hub.Stats().Clients {
		if c.Queued > hub.DefaultQueueEvents/2 {
			p.published--
			return true
		}
	}
	return false
}

// fork starts a product in a process of its own.
func (p *path) fork(name string) {
	p.tb.Helper()
	ours, theirs := p.pair()
	remote := os.NewFile(uintptr(theirs), "product")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BAILEY_PATH_PRODUCT=1", "GOMAXPROCS=1")
	cmd.ExtraFiles = []*os.File{remote}
	if err := cmd.Start(); err != nil {
		p.tb.Fatal(err)
	}
	_ = remote.Close()
	kill := p.serve(name, ours)
	p.tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		kill()
	})
}

// pin moves every thread of this process and of its children to CPU 0 and returns what undoes it.
func pin(tb testing.TB) (undo func()) {
	tb.Helper()
	var one, all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		tb.Fatal(err)
	}
	one.Set(0)
	set := func(s *unix.CPUSet) {
		for _, pid := range append(children(), "self") {
			tasks, _ := os.ReadDir("/proc/" + pid + "/task")
			for _, t := range tasks {
				if id, err := strconv.Atoi(t.Name()); err == nil {
					_ = unix.SchedSetaffinity(id, s) // a thread may have ended meanwhile
				}
			}
		}
	}
	set(&one)
	return func() { set(&all) }
}

func children() []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	all := strings.Fields(string(b))
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		b, _ := os.ReadFile("/proc/self/task/" + t.Name() + "/children")
		all = append(all, strings.Fields(string(b))...)
	}
	return all
}

func TestMain(m *testing.M) {
	if os.Getenv("BAILEY_PATH_PRODUCT") != "" {
		answerAll(3, 0, allow)
		return
	}
	leakcheck.Main(m)
}
