// Package machine gives a test a virtual machine with a whole Debian 12: systemd, and a disk that outlives reboots and power cuts. It
// knows nothing of Bailey.
//
// Invariant: a machine never outlives its test, and one that panics, hangs or is gone fails the test with what its console said.
package machine

import (
	"cmp"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/internal/roottest"
	"bailey/test/vm/cache"
	"bailey/test/vm/initramfs"
	"bailey/test/vm/kernel"
	"bailey/test/vm/qemu"
	"bailey/test/vm/wire"
)

// Options describe a machine. The zero value is a Debian 12 with its own kernel.
type Options struct {
	Kernel kernel.Source     // kernel.Debian12 by default
	LSM    string            // the security modules in order; Debian's, with bpf, by default
	Memory int               // MiB; 1024 by default
	Append string            // more of the kernel's command line
	Inject string            // a directory whose files are laid over the root file system before the first boot
	Units  map[string]string // systemd units by name, started at boot
}

const (
	bootLimit = 2 * time.Minute // until systemd is done; ten times what it takes on a quiet host
	runLimit  = 3 * time.Minute // for one command; a package takes seconds on a quiet host
	downLimit = 2 * time.Minute // for a shutdown; systemd kills what is left after 90 s
)

// Machine is a machine with a disk. Not safe for concurrent use: it belongs to its test.
type Machine struct {
	t      *testing.T
	o      Options
	c      qemu.Config
	init   string
	booted bool // once, so that its disk has what is injected
	vm     *qemu.Machine
	port   net.Conn
	in     *json.Decoder
}

// Start boots a machine with a fresh disk and waits until systemd is done. It ends with the test.
func Start(t *testing.T, o Options) *Machine {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a machine")
	}
	for _, program := range []string{"qemu-system-x86_64", "qemu-img"} {
		if _, err := exec.LookPath(program); err != nil {
			roottest.Unavailable(t, program+" is missing: run `sh tools/setup.sh test`")
		}
	}
	o.Kernel, o.LSM, o.Memory = cmp.Or(o.Kernel, kernel.Debian12), cmp.Or(o.LSM, "landlock,lockdown,yama,integrity,apparmor,bpf"), cmp.Or(o.Memory, 1024)
	m := &Machine{t: t, o: o}
	if err := m.make(); err != nil {
		t.Fatalf("make the machine: %v", err)
	}
	place, err := qemu.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(place.Leave)
	m.c.Place = place // through all reboots
	t.Cleanup(m.PowerCut)
	m.Boot()
	return m
}

// make prepares everything but the initramfs, which the first boot has another of.
func (m *Machine) make() error {
	ctx := m.t.Context()
	dir, err := cache.Dir(ctx)
	if err != nil {
		return err
	}
	image, err := rootImage(ctx, dir)
	if err != nil {
		roottest.Unavailable(m.t, err.Error())
	}
	k, err := kernel.Get(ctx, dir, m.o.Kernel)
	if err != nil {
		roottest.Unavailable(m.t, err.Error())
	}
	work, err := os.MkdirTemp("", "bailey-vm-") // short: sockets are in it
	if err != nil {
		return err
	}
	m.t.Cleanup(func() { _ = os.RemoveAll(work) })
	m.init = filepath.Join(work, "init")
	if err := initramfs.Build(ctx, m.init, "bailey/test/vm/guest"); err != nil {
		return err
	}
	accelerator, err := qemu.Accelerator(ctx, dir, m.init, k)
	if err != nil {
		return err
	}
	m.c = qemu.Config{Kernel: k, Initrd: filepath.Join(work, "initramfs"), Dir: work, LSM: m.o.LSM, Accelerator: accelerator, OneThread: true, Memory: m.o.Memory,
		Append: commandLine(m.o.Append), Disk: filepath.Join(work, "disk.qcow2"), Silence: time.Minute}
	out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "raw", m.c.Disk).CombinedOutput()
	if err != nil {
		return errors.New("qemu-img: " + string(out))
	}
	return nil
}

// commandLine is what the kernel's command line has besides what every machine's has.
func commandLine(more string) string {
	return strings.TrimSpace(wire.BootDisk + " systemd.show_status=0 " + more)
}

// NextBoot changes the security modules and what is added to the kernel's command line from the next boot on; "" is the default.
func (m *Machine) NextBoot(lsm, more string) {
	m.c.LSM, m.c.Append = cmp.Or(lsm, m.o.LSM), commandLine(more)
}

// Boot starts the machine after a PowerCut or a Down and waits until systemd is done, with no unit that failed.
func (m *Machine) Boot() {
	m.t.Helper()
	begin := time.Now()
	m.PowerOn()
	if state, _ := m.run("systemctl is-system-running --wait", bootLimit); strings.TrimSpace(state) != "running" {
		failed, _ := m.Run("systemctl --failed --no-legend; journalctl -b -p warning --no-pager | tail -n 40")
		m.t.Fatalf("after boot the system is %s\n%s", state, failed)
	}
	m.t.Logf("running after %.1f s", time.Since(begin).Seconds())
}

// PowerOn starts the machine after a PowerCut or a Down and waits until it takes commands, which is early in the boot.
func (m *Machine) PowerOn() {
	m.t.Helper()
	begin := time.Now()
	err := m.tryBoot()
	if qemu.Again(err) {
		m.t.Logf("once more: %v", err)
		err = m.tryBoot()
	}
	if err != nil {
		m.t.Fatalf("boot: %v", err)
	}
	m.booted = true
	m.t.Logf("booted in %.1f s", time.Since(begin).Seconds())
}

// Run runs a command of the shell as root and returns both its streams and its exit status.
func (m *Machine) Run(command string) (string, int) {
	m.t.Helper()
	return m.run(command, runLimit)
}

// Must is Run of a command that must succeed.
func (m *Machine) Must(command string) string {
	m.t.Helper()
	out, code := m.Run(command)
	if code == wire.Killed {
		busy, _ := m.run(doing, bootLimit)
		m.t.Fatalf("%s: killed, by a signal or at its limit of %v\n%s\nwhat the machine was doing:\n%s", command, runLimit, out, busy)
	}
	if code != 0 {
		m.t.Fatalf("%s: exit status %d\n%s", command, code, out)
	}
	return out
}

// doing shows who waits where in the kernel, and what was said last.
const doing = `ps -eo pid,ppid,stat,wchan:24,etimes,args
for p in $(ps -eo pid=,stat= | awk '$2 ~ /^[DT]/ { print $1 }'); do echo "$p:"; cat /proc/$p/stack; done
journalctl -b --no-pager -n 100`

// PowerCut takes the machine's power: what its kernel had not written to the disk is gone.
func (m *Machine) PowerCut() {
	if m.vm == nil {
		return
	}
	m.vm.Kill()
	m.off()
}

// Reboot shuts the system down in order and boots it again. It returns how long the way down took.
func (m *Machine) Reboot() time.Duration {
	m.t.Helper()
	took := m.Down("systemctl reboot --no-block")
	m.Boot()
	return took
}

// Down runs a command that ends the machine, and returns how long that took.
func (m *Machine) Down(command string) time.Duration {
	m.t.Helper()
	begin := time.Now()
	m.Must(command)
	select {
	case <-m.vm.Ended():
	case <-time.After(downLimit):
		m.t.Fatalf("%s: the system has not shut down after %v", command, downLimit)
	}
	took := time.Since(begin)
	if end := m.vm.Wait(); end.Err != nil {
		m.t.Fatalf("%s: %v", command, end.Err)
	}
	m.off()
	return took
}

func (m *Machine) off() {
	m.vm = nil
	if m.port != nil {
		m.port.Close()
		m.port = nil
	}
}
