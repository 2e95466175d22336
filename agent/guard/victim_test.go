package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"bailey/internal/boottime"

	"golang.org/x/sys/unix"
)

// secret is what the victim has in its memory and in a file without a name.
const secret = "the victim's own words"

// hello is the victim's first line.
type hello struct {
	Error   string
	Address uint64 // of the secret
	FD      int    // of the protected file, open for writing
	Memory  int    // of the file without a name
	Adopted bool
}

// condition is the victim's answer to "state".
type condition struct {
	Secret, Memory string
	Locked         bool
}

// beVictim is a process that has what an agent has, guarded or not, and does what it is told on its standard input.
func beVictim(s *scene) error {
	out := json.NewEncoder(os.Stdout)
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	copy(page, secret)
	memory, err := unix.MemfdCreate("victim", 0)
	if err != nil {
		return err
	}
	if _, err := unix.Pwrite(memory, []byte(secret), 0); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		return err
	}
	v := &victim{}
	if s.Guarded {
		err = v.guard(s)
	}
	h := hello{Address: uint64(uintptr(unsafe.Pointer(&page[0]))), Memory: memory}
	if err != nil {
		h.Error = err.Error()
		return out.Encode(h)
	}
	config, err := os.OpenFile(s.Config(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	h.FD, h.Adopted = int(config.Fd()), v.g != nil && v.g.Adopted()
	if err := out.Encode(h); err != nil {
		return err
	}
	go func() { // makes system calls and threads, as everybody does
		n := 0
		for range time.Tick(20 * time.Millisecond) {
			_, _ = os.Stat("/")
			if n++; n%10 == 0 {
				go runtime.LockOSThread() // ends with its goroutine
			}
		}
	}()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		reply, err := v.obey(in.Text(), page, memory)
		if err != nil {
			reply = err.Error()
		}
		if err := out.Encode(reply); err != nil {
			return err
		}
		if reply == "bye" {
			return nil
		}
	}
	return nil
}

type victim struct {
	g *Guard

	mu       sync.Mutex
	attempts []Attempt
	used     [][]byte
}

func (v *victim) guard(s *scene) (err error) {
	v.g, err = Start(Config{
		Pins: s.Pins, Paths: []string{s.Dir}, Programs: []string{"/proc/self/exe", s.Program}, Cgroups: []string{s.Cgroup},
		Service: s.Service, Manager: uint32(s.Manager), Shutdown: []string{s.Shutdown}, Emit: v.saw, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	go func() {
		if err := v.g.Run(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return nil
}

func (v *victim) saw(a Attempt) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.attempts = append(v.attempts, a)
}

func (v *victim) obey(line string, page []byte, memory int) (any, error) {
	command, argument, _ := strings.Cut(line, " ")
	switch command {
	case "state":
		c := condition{Secret: string(page[:len(secret)]), Locked: v.g != nil && v.g.Locked()}
		var b [len(secret)]byte
		_, err := unix.Pread(memory, b[:], 0)
		c.Memory = string(b[:])
		return c, err
	case "attempts":
		v.mu.Lock()
		defer v.mu.Unlock()
		out := v.attempts
		v.attempts = nil
		return out, nil
	case "tallies":
		return v.g.Tallies()
	case "unlock":
		d, err := time.ParseDuration(argument)
		v.g.Unlock(boottime.Now() + uint64(d))
		return "ok", err
	case "relock":
		v.g.Relock()
		return "ok", nil
	case "write":
		return "ok", os.WriteFile(argument, []byte("written by the victim"), 0o600)
	case "protect":
		return "ok", v.g.Protect(argument)
	case "protect_process":
		pid, err := strconv.Atoi(argument)
		if err != nil {
			return nil, err
		}
		return "ok", v.g.ProtectProcess(uint32(pid))
	case "die":
		return nil, unix.Kill(os.Getpid(), unix.SIGKILL)
	case "use_memory": // more than its control group has
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0); err != nil {
			return nil, err
		}
		for range 400 {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			v.used = append(v.used, b)
		}
		return nil, errors.New("there was enough memory")
	case "close":
		if v.g == nil {
			return "bye", nil
		}
		return "bye", v.g.Close()
	case "leave":
		return "bye", v.g.Leave()
	}
	return nil, errors.New("what?")
}
