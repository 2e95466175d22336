package process_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/sensor/process"
	"bailey/internal/roottest"
)

// scratchBPFFS mounts a bpffs of the test's own and returns a directory in it for pins, which the test must leave empty.
func scratchBPFFS(t testing.TB) (pins string) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bailey-test", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Fatalf("mount a bpffs: %v", err)
	}
	t.Cleanup(func() {
		for _, left := range below(dir) {
			if strings.HasSuffix(left, ".debug") { // the kernel's own, in each bpffs
				continue
			}
			t.Errorf("%s is left in the bpffs", left)
		}
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "process")
}

func below(dir string) []string {
	var out []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		out = append(out, path)
		if e.IsDir() {
			out = append(out, below(path)...)
		}
	}
	return out
}

// said is one event as a sensor that may be killed wrote it down.
type said struct {
	Kind  event.Kind
	Time  uint64
	Key   event.ProcessKey // of the child, of a fork
	Tag   string           // the last argument of an exec
	Found *process.Restored
}

func saidOf(e *event.Event) said {
	s := said{Kind: e.Kind, Time: e.Time, Key: e.Process.Key}
	switch e.Kind {
	case event.Fork:
		s.Key = e.Fork.Child.Key
	case event.Exec:
		if n := len(e.Exec.Argv); n > 0 {
			s.Tag = e.Exec.Argv[n-1]
		}
	}
	return s
}

// senseUntilKilled runs a pinned sensor that writes each event to a file before Emit returns.
func senseUntilKilled() error {
	pins, path, variant := os.Args[1], os.Args[2], os.Args[3]
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	write := func(s said) {
		line, err := json.Marshal(s)
		if err == nil {
			_, err = file.Write(append(line, '\n'))
		}
		if err != nil {
			panic(err)
		}
	}
	cfg := process.Config{
		Pins: pins, Log: slog.New(slog.DiscardHandler), Health: health.NewRegistry(),
		Emit: func(e *event.Event) {
			write(saidOf(e))
			if e.Time%64 == 0 {
				pause(100 * time.Microsecond) // so that kills meet it between saying and returning
			}
		},
	}
	s, err := process.New(process.WithVariant(cfg, variant))
	if err != nil {
		return err
	}
	found := s.Restored()
	write(said{Found: &found})
	fmt.Println("ready")
	ended := make(chan error)
	go func() { ended <- s.Run(context.Background()) }()
	s.SetWanted(true)
	fmt.Println("settled")
	return <-ended
}

// tagged starts and ends programs, each with a tag of its own, until stopped; then it returns their number.
type tagged struct {
	quit  chan struct{}
	group sync.WaitGroup
	mu    sync.Mutex
	n     int
}

func startTagged(workers int) *tagged {
	l := &tagged{quit: make(chan struct{})}
	for range workers {
		l.group.Go(func() {
			for {
				select {
				case <-l.quit:
					return
				default:
				}
				l.mu.Lock()
				tag := "tagged-" + strconv.Itoa(l.n)
				l.n++
				l.mu.Unlock()
				_ = exec.Command("/bin/true", tag).Run()
				pause(3 * time.Millisecond) // so that the ring has room for what happens while none reads
			}
		})
	}
	return l
}

func (l *tagged) stop() int {
	close(l.quit)
	l.group.Wait()
	return l.n
}

// exactlyOnce fails the test unless what sensors said, in the order in which they ran, has each of n tagged programs'
// fork, exec and exit once, in order. An event that a sensor found in doubt may have been said before, as it is.
func exactlyOnce(t *testing.T, sensors [][]said, n int) {
	t.Helper()
	type identity struct {
		kind event.Kind
		key  event.ProcessKey
		tag  string
	}
	first := make(map[identity]said)
	order := make(map[event.ProcessKey][]event.Kind)
	tags := make(map[string]event.ProcessKey)
	again, doubts := 0, 0
	for i, events := range sensors {
		doubt := uint64(0)
		for _, s := range events {
			if s.Found != nil {
				doubt = s.Found.InDoubt
				doubts += int(doubt)
				if s.Found.LostInKernel+s.Found.LostInReader+s.Found.Unreadable != 0 {
					t.Errorf("sensor %d lost something: %+v", i, *s.Found)
				}
				continue
			}
			id := identity{s.Kind, s.Key, s.Tag}
			if before, ok := first[id]; ok && (s.Kind != event.Exec || strings.HasPrefix(s.Tag, "tagged-")) {
				again++
				if before != s || doubt == 0 {
					t.Errorf("sensor %d said %+v again, first %+v", i, s, before)
				}
				doubt--
				continue
			}
			first[id] = s
			order[s.Key] = append(order[s.Key], s.Kind)
			if s.Kind == event.Exec && strings.HasPrefix(s.Tag, "tagged-") {
				tags[s.Tag] = s.Key
			}
		}
	}
	missing := 0
	for i := range n {
		tag := "tagged-" + strconv.Itoa(i)
		key, ok := tags[tag]
		if !ok {
			missing++
			if missing < 10 {
				t.Errorf("%s was never said to run", tag)
			}
			continue
		}
		if got := order[key]; !slices.Equal(got, []event.Kind{event.Fork, event.Exec, event.Exit}) {
			t.Errorf("%s, which is %v, had %v", tag, key, got)
		}
	}
	t.Logf("%d programs, %d missing, %d events in doubt, %d of them said twice", n, missing, doubts, again)
}

func readSaid(t testing.TB, path string) []said {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var out []said
	for line := range strings.Lines(string(data)) {
		var s said
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, s)
	}
	return out
}

// killAfter returns how many of a sensor's words come before it is killed: two are said when it has dealt with what was there.
// Often enough that the ring does not fill on a slow machine.
func killAfter(i int) int {
	if i == 0 {
		return 2
	}
	return []int{0, 2, 1, 2}[i%4]
}

// Sensors are killed again and again at random moments, under load, also while they replace one another's programs: together
// they say every event once.
func TestKilledSensorsLoseNothing(t *testing.T) {
	roottest.Require(t, needs+" and mounts a bpffs")
	kills, least := 60, 20
	if testing.Short() { // as in a machine without hardware's help, where each of them loads programs for seconds
		kills, least = 6, 3
	}
	pins, dir := scratchBPFFS(t), t.TempDir()
	var load *tagged
	var files []string
	variant := "a"
	enough := time.Now().Add(time.Hour)
	if last, ok := t.Deadline(); ok {
		enough = time.Now().Add(time.Until(last) / 3)
	}
	for i := range kills {
		if i >= least && time.Now().After(enough) {
			t.Logf("stopped after %d kills: this machine is slow", i)
			break
		}
		if i%3 == 2 {
			variant = string('a' + rune(rand.IntN(3)))
		}
		file := filepath.Join(dir, strconv.Itoa(i))
		files = append(files, file)
		cmd := helper("sense", pins, file, variant)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() }) // if the test ends before
		said := bufio.NewScanner(out)
		for range killAfter(i) {
			if !said.Scan() {
				t.Fatalf("sensor %d did not start", i)
			}
		}
		if load == nil {
			load = startTagged(2)
		}
		pause(time.Duration(rand.IntN(150)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	n := load.stop()
	w := attach(t, process.WithVariant(process.Config{Pins: pins, Wanted: true}, variant))
	last := w.Restored()
	w.run(t)
	marker := run(t, exec.Command("/bin/true", "marker"))
	w.exit(t, marker)
	var all [][]said
	for _, file := range files {
		all = append(all, readSaid(t, file))
	}
	end := []said{{Found: &last}}
	for _, e := range w.all() {
		end = append(end, saidOf(e))
	}
	exactlyOnce(t, append(all, end), n)
	agree(t, w)
}
