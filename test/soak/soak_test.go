package soak

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bailey/agent/keeper"
	"bailey/test/rig"

	"golang.org/x/sys/unix"
)

var duration = flag.Duration("duration", 20*time.Second, "how long the soak runs; `make soak DURATION=1h`")

var built string

func TestMain(m *testing.M) {
	flag.Parse()
	rig.Main(m, &built, "bailey", "faulty")
}

const config = "[keeper]\ncrash_loop = 1000000\nbackoff_max = \"20ms\"\n"

// TestSoak runs in two phases. In the first, two thirds of the time, the agent lives and products come and go: what grows then grows in
// it. In the second agents are killed, stopped and swapped: what grows then grows in the keeper, the products and the kernel.
func TestSoak(t *testing.T) {
	a := rig.Start(t, built, config)
	s := &soak{t: t, a: a, denied: a.Program("denied")} // before it cannot be written any more
	a.Install(rig.Spec{Name: "good", Questions: "exec,open", Events: "exec,exit,close_write", Settings: map[string]string{"deny_path": a.Scratch + "/denied"}})
	a.Install(rig.Spec{Name: "cached", Questions: "exec,open", Settings: map[string]string{"cache": "true"}})
	a.Install(rig.Spec{Name: "late", Questions: "exec", Settings: map[string]string{"only": a.Scratch + "/slow", "delay": "600ms"}})
	a.Install(rig.Spec{Name: "dying", Questions: "open", Settings: map[string]string{"only": a.Scratch + "/deadly", "crash": "true"}})
	load := s.load(4)
	defer load()

	s.phase("products fail", *duration*2/3, s.productFaults)
	s.phase("agents fail", *duration/3, s.agentFaults)
	t.Logf("%d opens, %d execs, %d refused as they should be", s.opens.Load(), s.execs.Load(), s.refused.Load())
	if n := s.failed.Load(); n > 0 {
		t.Errorf("%d operations failed that should not", n)
	}
}

// soak is one run.
type soak struct {
	t      *testing.T
	a      *rig.Agent
	denied string // a program that is refused

	opens, execs, refused, failed atomic.Int64
}

// load opens, writes and executes on the scratch filesystem until the function that it returns is called.
func (s *soak) load(workers int) (end func()) {
	var programs []string
	for i := range 32 {
		programs = append(programs, s.a.Program(fmt.Sprintf("program-%d", i)))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(3 * time.Millisecond):
				}
				s.operate(i, programs[i%len(programs)])
			}
		})
	}
	var once sync.Once
	return func() { once.Do(func() { close(stop) }); wg.Wait() }
}

func (s *soak) operate(i int, program string) {
	var err error
	switch i % 8 {
	case 0, 1, 2, 3:
		s.opens.Add(1)
		var fd int
		if fd, err = unix.Open(program, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			err = unix.Close(fd)
		}
	case 4:
		s.opens.Add(1)
		err = os.WriteFile(fmt.Sprintf("%s/written-%d", s.a.Scratch, i%64), []byte("x"), 0o644)
	case 5:
		if exec.Command(s.denied).Run() != nil {
			s.refused.Add(1)
		}
	default:
		s.execs.Add(1)
		err = exec.Command(program).Run()
	}
	if err != nil {
		s.failed.Add(1)
		s.t.Logf("operation: %v", err)
	}
}

// phase runs faults for a while, with samples, and judges them.
func (s *soak) phase(name string, d time.Duration, fault func(round int)) {
	s.t.Helper()
	s.a.Eventually("everything runs", 30*time.Second, s.whole)
	every := max(d/150, 500*time.Millisecond)
	end := time.Now().Add(d)
	var samples []sample
	next := time.Now()
	for round := 0; time.Now().Before(end); round++ {
		fault(round)
		if time.Now().After(next) {
			s.a.Eventually("everything runs", 60*time.Second, s.whole)
			samples = append(samples, s.sample())
			next = time.Now().Add(every)
			if len(samples)%15 == 1 {
				s.progress(name, samples[len(samples)-1])
			}
		}
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // the load goes on meanwhile
	}
	s.judge(name, samples, d)
}

// whole is nil when the agent serves and every product has its say, or is late as it should be. A product that has ended too often, as
// the faults of a long soak make it, is started again as an operator would.
func (s *soak) whole() error {
	k, err := keeper.ReadState(s.a.Run)
	if err != nil {
		return err
	}
	if k.State != keeper.Serving {
		return fmt.Errorf("the keeper says %s", k.State)
	}
	if err := s.a.Serves(); err != nil {
		return err
	}
	for _, p := range s.a.Status().GetProducts() {
		if p.GetState() == "failed" {
			_, _ = s.a.Bailey("product", "start", p.GetName()) // it may have ended once more by now: the next look tells
		}
		if p.GetState() != "running" && p.GetName() != "dying" {
			return fmt.Errorf("%s is %s: %s", p.GetName(), p.GetState(), p.GetReason())
		}
	}
	return nil
}

// productFaults makes products late, crash, be killed and be restarted, and the cache be dropped.
func (s *soak) productFaults(round int) {
	switch round % 50 {
	case 7:
		_ = exec.Command(s.a.Program("slow")).Run() // its verdict is late, and an allow
	case 17:
		_ = os.WriteFile(s.a.Scratch+"/deadly", nil, 0o644) // decided without the one that dies of it
	case 27:
		s.kill("good")
	case 37:
		_, _ = s.a.Bailey("product", "restart", "cached") // another fault may be in its way
	case 47:
		_, _ = s.a.Bailey("cache", "clear")
	}
}

// agentFaults kills, stops and swaps agents.
func (s *soak) agentFaults(round int) {
	k, err := keeper.ReadState(s.a.Run)
	if err != nil || k.Agent == 0 {
		return
	}
	switch round % 40 {
	case 9, 19:
		time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond) //nolint:forbidigo // a random moment is meant
		_ = syscall.Kill(k.Agent, syscall.SIGKILL)
	case 29:
		_ = syscall.Kill(k.Agent, syscall.SIGSTOP)
		time.Sleep(300 * time.Millisecond) //nolint:forbidigo // how long it is stopped
		_ = syscall.Kill(k.Agent, syscall.SIGCONT)
	case 39:
		_, _ = s.a.Bailey("agent", "upgrade", s.a.Exe)
	}
}

func (s *soak) kill(product string) {
	for _, p := range s.a.Status().GetProducts() {
		if p.GetName() == product && p.GetPid() > 0 {
			_ = syscall.Kill(int(p.GetPid()), syscall.SIGKILL)
		}
	}
}
