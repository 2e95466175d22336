package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"time"

	"bailey/test/vm/initramfs"
	"bailey/test/vm/qemu"
	"bailey/test/vm/wire"
)

// handUnit starts the host's hand early, and no shutdown stops it before the last processes are killed.
const handUnit = `[Unit]
DefaultDependencies=no
IgnoreOnIsolate=yes
[Service]
ExecStart=/` + wire.HandPath + " " + wire.Hand + `
KillMode=process
OOMScoreAdjust=-1000
[Install]
WantedBy=sysinit.target
`

const unitDir = wire.Inject + "/etc/systemd/system/"

// pack writes the initramfs; before the first boot it has what is laid over the disk.
func (m *Machine) pack() error {
	a, err := initramfs.Guest(m.t.Context(), m.c.Initrd, m.init, m.c.Kernel)
	if err != nil {
		return err
	}
	if !m.booted {
		err = errors.Join(a.File(path.Join(wire.Inject, wire.HandPath), m.init), a.Text(unitDir+"vm-hand.service", handUnit),
			a.Link(unitDir+"sysinit.target.wants/vm-hand.service", "../vm-hand.service"))
		for name, text := range m.o.Units {
			err = errors.Join(err, a.Text(unitDir+name, text), a.Link(unitDir+"multi-user.target.wants/"+name, "../"+name))
		}
		if m.o.Inject != "" {
			err = errors.Join(err, a.Tree(wire.Inject, m.o.Inject))
		}
	}
	return errors.Join(err, a.Close())
}

// tryBoot starts the machine and waits for its hand.
func (m *Machine) tryBoot() error {
	if err := m.pack(); err != nil {
		return fmt.Errorf("make the initramfs: %w", err)
	}
	vm, err := qemu.Start(m.t.Context(), m.c)
	if err != nil {
		return err
	}
	m.vm = vm
	if err := m.dial(); err != nil {
		return err
	}
	var hello wire.Hello
	return m.receive(&hello, bootLimit)
}

// dial reaches the guest's second serial port, which is there as soon as QEMU is.
func (m *Machine) dial() error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		port, err := m.vm.Dial()
		if err == nil {
			m.port, m.in = port, json.NewDecoder(port)
			return nil
		}
		select {
		case <-m.vm.Ended():
			return m.gone()
		case <-tick.C:
		}
	}
}

// receive reads the hand's next line.
func (m *Machine) receive(line any, limit time.Duration) error {
	if err := m.port.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	err := m.in.Decode(line)
	if err == nil {
		return nil
	}
	select { // a machine that ends takes its serial port along
	case <-m.vm.Ended():
		return m.gone()
	case <-time.After(2 * time.Second):
	}
	m.vm.Kill()
	return fmt.Errorf("no answer within %v: %w; console:\n%s", limit, err, qemu.Tail(m.vm.Wait().Console, 60))
}

// gone says why the machine is.
func (m *Machine) gone() error {
	end := m.vm.Wait()
	if end.Err != nil {
		return end.Err
	}
	return fmt.Errorf("the machine ended by itself; console:\n%s", qemu.Tail(end.Console, 60))
}

// run gives the hand a command.
func (m *Machine) run(command string, limit time.Duration) (string, int) {
	m.t.Helper()
	if m.vm == nil {
		m.t.Fatalf("%s: the machine is off", command)
	}
	err := json.NewEncoder(m.port).Encode(wire.Request{Command: command, Limit: limit.Seconds()})
	var r wire.Reply
	if err == nil {
		err = m.receive(&r, limit+30*time.Second)
	}
	if err != nil {
		m.t.Fatalf("%s: %v", command, err)
	}
	return string(r.Output), r.Code
}
