package contain

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that pid 1 hands on to the product.
var forwarded = []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2}

// execInit replaces this process by the same program as the product's pid 1: a small fresh heap, no thread that was there
// before the privileges went, and nothing read from the host any more.
func execInit(s *Spec, self, specFD int) error {
	next := Spec{Stage: "init", Name: s.Name, Command: s.Command, Env: s.Env}
	b, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("start pid 1: %w", err)
	}
	mem, err := unix.MemfdCreate("spec", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("start pid 1: %w", err)
	}
	if _, err := unix.Pwrite(mem, b, 0); err != nil {
		return fmt.Errorf("start pid 1: %w", err)
	}
	if err := unix.Dup3(mem, specFD, 0); err != nil {
		return fmt.Errorf("start pid 1: %w", err)
	}
	for i := 1; i < 4; i++ { // they were marked when this program began
		if _, err := unix.FcntlInt(uintptr(specFD+i), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("start pid 1: %w", err)
		}
	}
	if err := setHugePages(false); err != nil {
		return err
	}
	return execFD(self, os.Args, []string{"GOMAXPROCS=1", "GOGC=50"})
}

// setHugePages says whether the kernel may give this process, and what it executes from now on, huge pages unasked. Pid 1
// goes without: two of them are four times what it needs, and count against the product's limit.
func setHugePages(on bool) error {
	disable := uintptr(1)
	if on {
		disable = 0
	}
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, disable, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) { // a kernel without huge pages
		return fmt.Errorf("set the use of huge pages: %w", err)
	}
	return nil
}

// execFD executes an open program; there is no path to it in the new root.
func execFD(fd int, argv, env []string) error {
	args, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	vars, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	empty := [1]byte{}
	_, _, e := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])), uintptr(unsafe.Pointer(&args[0])), uintptr(unsafe.Pointer(&vars[0])), unix.AT_EMPTY_PATH, 0)
	if e == unix.ENOENT {
		return fmt.Errorf("start pid 1: this program is linked dynamically and its loader is not in the product's root; build it with CGO_ENABLED=0: %w", e)
	}
	return fmt.Errorf("start pid 1: %w", e)
}

// runInit is pid 1 of a product's namespace: it starts the product, hands signals on, reaps, and ends with the product or
// with the agent. When pid 1 ends, the kernel kills whatever the product left behind.
func runInit(s *Spec, st status, specFD int) int {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		st.send(message{Error: fmt.Sprintf("protect pid 1: %v", err)})
		return exitFailed
	}
	if agentGone(specFD + 3) { // while the containment was built: the product is not even started
		return exitFailed
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, forwarded...)
	pid, err := startProduct(s, specFD+2)
	if err != nil {
		st.send(message{Error: err.Error()})
		return exitFailed
	}
	closeProductEnds(specFD + 2)
	debug.FreeOSMemory() // what the packages of this program made at its start is garbage here
	st.send(message{Started: pid})
	go func() {
		for sig := range signals {
			_ = unix.Kill(pid, sig.(unix.Signal)) // it may be gone already
		}
	}()
	ended := make(chan Exit, 1)
	gone := make(chan struct{})
	go func() { ended <- reap(pid) }()
	go func() { defer close(gone); awaitAgentsEnd(specFD + 3) }()
	select {
	case exit := <-ended:
		st.send(message{Exit: &exit})
		return 0
	case <-gone:
		return exitFailed
	}
}

func startProduct(s *Spec, socket int) (int, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("start product: %w", err)
	}
	if err := setHugePages(true); err != nil { // for the product
		return 0, fmt.Errorf("start product: %w", err)
	}
	pid, err := syscall.ForkExec(s.Command[0], s.Command, &syscall.ProcAttr{
		Dir:   ProductDir,
		Env:   s.Env,
		Files: []uintptr{uintptr(null), 1, 2, uintptr(socket)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start product: execute %s: %w", s.Command[0], err)
	}
	return pid, errors.Join(setHugePages(false), unix.Close(null))
}

// closeProductEnds lets go of the socket and the output pipes, so that their other ends see the product go.
func closeProductEnds(socket int) {
	_ = unix.Close(socket)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return // then they close with this process, a moment later
	}
	for fd := range 3 {
		_ = unix.Dup3(null, fd, 0)
	}
	_ = unix.Close(null)
}

// agentGone reports whether the agent's end of the pipe is closed already.
func agentGone(fd int) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds[:], 0)
	return err == nil && n > 0
}

// awaitAgentsEnd returns when the agent's end of the pipe is closed: by the kernel, if nobody else could.
func awaitAgentsEnd(fd int) {
	var b [1]byte
	for {
		if _, err := unix.Read(fd, b[:]); !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return
		}
	}
}

// reap waits until the product itself has ended, burying everything else that dies meanwhile.
func reap(product int) Exit {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return Exit{Code: exitFailed}
		case pid == product && ws.Signaled():
			return Exit{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
		case pid == product && ws.Exited():
			return Exit{Code: ws.ExitStatus()}
		}
	}
}
