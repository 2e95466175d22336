// Package qemu runs virtual machines, one at a time unless AtOnce says otherwise, and says how each ended. It knows neither tests nor distributions.
//
// Invariant: a kernel that panics, a machine that hangs and a machine that the host starves are told apart, each within a limit,
// and no machine outlives the program that started it.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bailey/test/vm/kernel"

	"golang.org/x/sys/unix"
)

// Config is a machine.
type Config struct {
	Kernel      *kernel.Kernel
	Initrd      string
	Dir         string // for what the machine leaves; a short path, sockets are in it
	LSM         string // the security modules, in order
	Append      string // more of the kernel's command line
	Accelerator string // "kvm" or "tcg", see Accelerator
	Memory      int    // MiB
	Disk        string // a qcow2 image, /dev/vda; empty: none
	// OneThread has tcg emulate both processors in turn: work that keeps both busy takes two thirds longer. With a thread each the emulator can lose what a
	// kernel writes into its own code while the other processor runs there: one boot of a whole system in some dozens, and half of the test runs
	// with kernels of 6.12 and later, panicked in the scheduler, where its limits are switched on.
	OneThread bool
	// Deterministic is a machine with one emulated processor whose time is what it executes: figures measured in it repeat, whatever the
	// host does meanwhile, and say nothing about real processors. It needs the accelerator tcg.
	Deterministic bool
	// Place is where it runs, one's own for as many machines in turn as one likes; nil: Start waits for one, which is free again when the machine has ended.
	Place *Place
	// Silence is how long a guest may give no sign of life (the guest's init gives one every second) before it counts as hanging.
	Silence time.Duration
}

// Machine is a running machine.
type Machine struct {
	c     Config
	cmd   *exec.Cmd
	out   strings.Builder // what QEMU itself says
	begin time.Time
	place *Place // to be given back, nil: the caller's
	ended chan struct{}
	end   End // once ended is closed
}

// End is how a machine ended.
type End struct {
	Console, Report string // what is on its first and second serial port
	Wall            time.Duration
	Err             error // ErrPanic, ErrHang, ErrStillborn, ErrStarved, or that of the context; nil when the guest ended by itself
}

// AtOnceEnv says how many machines may run at once, of all programs of this host that have one temporary directory.
const AtOnceEnv = "BAILEY_VM_AT_ONCE"

// AtOnce is how many machines run at once: one, unless the environment says more. With OneThread each takes one processor, and what else runs there is felt.
func AtOnce() int {
	n, err := strconv.Atoi(os.Getenv(AtOnceEnv))
	if err != nil {
		return 1
	}
	return max(n, 1)
}

// Place is room for one machine on this host.
type Place struct{ lock *os.File }

// Take waits until fewer machines than may run at once do, and takes a place.
func Take(ctx context.Context) (*Place, error) {
	for {
		for i := range AtOnce() {
			lock, err := os.Create(filepath.Join(os.TempDir(), fmt.Sprintf("bailey-vm-%d.lock", i)))
			if err != nil {
				return nil, fmt.Errorf("make the lock: %w", err)
			}
			err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
			if err == nil {
				return &Place{lock}, nil
			}
			lock.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("wait for another machine to end: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Leave gives the place back. nil is none.
func (p *Place) Leave() {
	if p != nil {
		_ = p.lock.Close()
	}
}

// Start starts a machine, as soon as there is a place for it. The context's end is the machine's.
func Start(ctx context.Context, c Config) (*Machine, error) {
	var own *Place
	if c.Place == nil {
		var err error
		if own, err = Take(ctx); err != nil {
			return nil, err
		}
	}
	for _, left := range []string{"console", "report", "pulse"} { // of the boot before
		_ = os.Remove(filepath.Join(c.Dir, left))
	}
	m := &Machine{c: c, begin: time.Now(), place: own, ended: make(chan struct{})}
	m.cmd = exec.Command("qemu-system-x86_64", c.args()...)
	m.cmd.Dir, m.cmd.Stdout, m.cmd.Stderr = c.Dir, &m.out, &m.out
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		own.Leave()
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	go m.watch(ctx)
	return m, nil
}

func (c Config) args() []string {
	cpu, line := "host", ""
	if c.Accelerator != "kvm" {
		// Without fast rep movs the kernel does not copy and clear byte by byte, each of which takes the emulator as long as an instruction.
		cpu, line = "max,-erms,-fsrm", " no_timer_check tsc=reliable lpj=4000000"
	}
	accelerator := c.Accelerator
	if accelerator == "tcg" && c.OneThread {
		accelerator = "tcg,thread=single"
	}
	processors := "2"
	switch {
	case c.Deterministic:
		processors = "1"
		line += " nokaslr norandmaps"
	case c.Accelerator != "kvm": // what costs an emulator most and makes no difference to any test; with the above it saves a quarter of the time
		cpu += ",-smap,-smep,-la57"
		line += " init_on_alloc=0 kfence.sample_interval=0"
	}
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35", "-accel", accelerator, "-cpu", cpu, "-smp", processors, "-m", strconv.Itoa(c.Memory), "-kernel", c.Kernel.Image, "-initrd", c.Initrd,
		"-append", "console=ttyS0 quiet panic=-1 oops=panic unknown_nmi_panic mitigations=off cryptomgr.notests lsm=" + c.LSM + line + " " + c.Append,
		"-serial", "file:console",
		"-chardev", "socket,id=report,path=report.sock,server=on,wait=off,logfile=report", "-serial", "chardev:report",
		"-chardev", "file,id=pulse,path=pulse", "-device", "isa-debugcon,iobase=0xe9,chardev=pulse",
		"-device", "isa-debug-exit,iobase=0x501,iosize=2",
		"-chardev", "socket,id=monitor,path=monitor.sock,server=on,wait=off", "-mon", "chardev=monitor"}
	if c.Deterministic {
		// An instruction takes 2 ns, waiting takes none, and what the processor calls random is always the same.
		args = append(args, "-icount", "shift=1,sleep=off", "-seed", "1", "-rtc", "clock=vm")
	}
	if c.Disk != "" {
		args = append(args, "-drive", "if=virtio,format=qcow2,file="+c.Disk)
	}
	return args
}

// Ended is closed when the machine is gone.
func (m *Machine) Ended() <-chan struct{} { return m.ended }

// Wait returns how the machine ended.
func (m *Machine) Wait() End {
	<-m.ended
	return m.end
}

// Kill takes the machine's power.
func (m *Machine) Kill() {
	_ = m.cmd.Process.Kill()
	<-m.ended
}

// Dial returns the other end of the guest's second serial port.
func (m *Machine) Dial() (net.Conn, error) {
	return net.Dial("unix", filepath.Join(m.c.Dir, "report.sock"))
}

// watch waits for the machine's end and, where it does not come, brings it.
func (m *Machine) watch(ctx context.Context) {
	defer close(m.ended)
	defer m.place.Leave()
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = m.cmd.Wait() // how the guest ended is judged by what it said
	}()
	seen := m.attend(ctx, exited)
	_ = m.cmd.Process.Kill()
	<-exited
	m.end = End{Console: read(m.c.Dir, "console"), Report: read(m.c.Dir, "report"), Wall: time.Since(m.begin)}
	if !seen.hung {
		seen.console = m.end.Console
	}
	m.end.Err = seen.judge(m.end.Console)
	if m.end.Err == nil && m.end.Report == "" && m.out.Len() > 0 {
		m.end.Err = errors.New("qemu says: " + m.out.String())
	}
}

// attend returns when the machine has ended, or what speaks against it.
func (m *Machine) attend(ctx context.Context, exited <-chan struct{}) evidence {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for life := newPulse(m.cmd.Process.Pid, m.c.Dir); ; {
		select {
		case <-exited:
			return evidence{}
		case <-tick.C:
		case <-ctx.Done():
		}
		life.look()
		switch silent := life.silent(); {
		case silent >= m.c.Silence:
			seen := evidence{hung: true, lived: life.size > 0, silent: silent, console: read(m.c.Dir, "console")}
			seen.got, seen.waited = life.share(life.seen, life.atSeen)
			m.ask(exited)
			return seen
		case ctx.Err() != nil:
			seen := evidence{stopped: ctx.Err()}
			seen.got, seen.waited = life.share(m.begin, schedule{})
			return seen
		}
	}
}

// ask makes a hanging kernel say where it hangs: an interrupt that cannot be masked makes it panic.
func (m *Machine) ask(exited <-chan struct{}) {
	c, err := net.Dial("unix", filepath.Join(m.c.Dir, "monitor.sock"))
	if err != nil {
		return
	}
	defer c.Close()
	if _, err := c.Write([]byte("nmi\n")); err != nil {
		return
	}
	select {
	case <-exited:
	case <-time.After(5 * time.Second):
	}
}

func read(dir, name string) string {
	text, _ := os.ReadFile(filepath.Join(dir, name))
	return strings.ReplaceAll(string(text), "\r", "")
}
