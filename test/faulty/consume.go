package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eatMemory touches 200 MiB a second until it is killed.
func (b *behaviour) eatMemory() {
	var keep [][]byte
	for {
		page := make([]byte, 4<<20)
		for i := 0; i < len(page); i += 4096 {
			page[i] = 1
		}
		keep = append(keep, page)
		time.Sleep(20 * time.Millisecond)
		runtime.KeepAlive(keep)
	}
}

// mapMuch maps one TiB without touching it, and then touches it.
func (b *behaviour) mapMuch() {
	const size = 1 << 40
	m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	b.finding("map", map[string]string{"error": fmt.Sprint(err)})
	if err != nil {
		return
	}
	go func() {
		for i := 0; i < size; i += 4096 {
			m[i] = 1
			if i%(4<<20) == 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}()
}

// hoardFiles opens descriptors until it cannot, and keeps them.
func (b *behaviour) hoardFiles() {
	const want = 100_000
	n := 0
	var err error
	for ; n < want && err == nil; n++ {
		_, err = unix.Open("/dev/null", unix.O_RDONLY, 0)
	}
	b.finding("files", map[string]string{"opened": fmt.Sprint(n), "error": fmt.Sprint(err)})
}

// forkBomb starts copies of itself until it cannot, and then tries on.
func (b *behaviour) forkBomb() {
	const want = 50_000
	said := false
	for n := range want {
		cmd := exec.Command("/proc/self/exe", "--role=sleep")
		cmd.Env = []string{"GOMAXPROCS=1"}
		if err := cmd.Start(); err != nil {
			if !said {
				b.finding("processes", map[string]string{"started": fmt.Sprint(n), "error": fmt.Sprint(err)})
				said = true
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// spin keeps 64 threads busy for ever, after asking for real-time priority.
func (b *behaviour) spin() {
	param := [1]int32{1}
	_, _, e := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_FIFO, uintptr(unsafe.Pointer(&param)))
	nice := unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
	b.finding("spin", map[string]string{"realtime": fmt.Sprint(e), "nice": fmt.Sprint(nice)})
	runtime.GOMAXPROCS(64)
	for range 64 {
		go func() {
			runtime.LockOSThread()
			for x := uint64(0); ; x++ {
				_ = x
			}
		}()
	}
}

// fillState writes files to its state directory until it cannot, and tries on.
func (b *behaviour) fillState() {
	block := bytes.Repeat([]byte("full "), 1<<18)
	said := false
	for i := 0; ; i++ {
		err := os.WriteFile(filepath.Join(os.Getenv("STATE_DIRECTORY"), fmt.Sprintf("f%d", i)), block, 0o600)
		if err != nil && !said {
			b.finding("state", map[string]string{"files": fmt.Sprint(i), "error": fmt.Sprint(err)})
			said = true
		}
		if err != nil || i > 200 {
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// stateFile is what a product with state reads when it starts.
func stateFile() string { return filepath.Join(os.Getenv("STATE_DIRECTORY"), "engine.db") }

const stateMagic = "engine state 1\n"

// openState reads the state as engines do that trust their own files.
func openState(how string) error {
	if how != "strict" {
		return nil
	}
	text, err := os.ReadFile(stateFile())
	if os.IsNotExist(err) {
		return os.WriteFile(stateFile(), []byte(stateMagic), 0o600)
	}
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	if !strings.HasPrefix(string(text), stateMagic) {
		panic(fmt.Sprintf("state: bad magic %q", text[:min(len(text), 16)]))
	}
	return nil
}

// countStart lets so many starts go well, and none after them; 0: all.
func countStart(well int) error {
	if well == 0 {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(os.Getenv("STATE_DIRECTORY"), "starts"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("count the starts: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString("x"); err != nil {
		return fmt.Errorf("count the starts: %w", err)
	}
	if st, err := f.Stat(); err != nil || st.Size() > int64(well) {
		panic(fmt.Sprintf("told to crash at every start after the first %d", well))
	}
	return nil
}

// corruptState leaves a state that no later start survives, and dies.
func corruptState() {
	_ = os.WriteFile(stateFile(), []byte("\x00\x01garbage"), 0o600)
	panic("told to corrupt the state")
}

// floodLog writes to both outputs without an end.
func floodLog() {
	line := append(bytes.Repeat([]byte("x"), 1023), '\n')
	for {
		_, _ = os.Stdout.Write(line)
		_, _ = os.Stderr.Write(line)
	}
}

// floodFindings reports without an end.
func (b *behaviour) floodFindings() {
	text := strings.Repeat("y", 8<<10)
	for {
		b.finding("flood", map[string]string{"text": text})
	}
}
