package main

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Ports of devices that the host made for this guest.
const (
	pulsePort = 0xe9
	exitPort  = 0x501
)

// pulse gives the host a sign of life, and then one every second. It opens the port once: what is tested may lock it.
func pulse() {
	port, err := os.OpenFile("/dev/port", os.O_WRONLY, 0)
	if err != nil {
		return // the host will say that this guest is silent
	}
	beat(port)
	for range time.Tick(time.Second) {
		beat(port)
	}
}

func beat(port *os.File) { _, _ = port.WriteAt([]byte{'.'}, pulsePort) }

// openReport opens the second serial port without the terminal's line editing.
func openReport() (*os.File, error) {
	f, err := os.OpenFile("/dev/ttyS1", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the report's serial port: %w", err)
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("set up the report's serial port: %w", err)
	}
	t.Oflag, t.Lflag, t.Iflag = 0, 0, 0
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t); err != nil {
		return nil, fmt.Errorf("set up the report's serial port: %w", err)
	}
	return f, nil
}

// exit ends the virtual machine with a code that QEMU passes on.
func exit(code int) {
	unix.Sync()
	if port, err := os.OpenFile("/dev/port", os.O_WRONLY, 0); err == nil {
		_, _ = port.WriteAt([]byte{byte(code)}, exitPort)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
