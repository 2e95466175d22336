package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"bailey/test/started"
)

// auditLane has the kernel audit executions and opens, and a reader that throws the records away: what Debian's auditd costs beside that
// (writing them to a file) is not measured. Processes that started before are not audited, those that start afterwards pay for it
// for ever, so these are the last lanes, and what one has added stays for the next.
type auditLane struct {
	calls string // that are audited
	child *started.Program
}

func (*auditLane) hooks() bool  { return false }
func (*auditLane) builds() bool { return false }

const auditReady = "/run/auditor-reads"

func (l *auditLane) start() error {
	err := os.Remove(auditReady)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if l.child, err = startChild("/run/auditor.log", "/proc/self/exe", "-auditor="+l.calls); err != nil {
		return err
	}
	return l.child.Await(context.Background(), patience, func() error { _, err := os.Stat(auditReady); return err })
}

func (l *auditLane) stop() error {
	if l.child == nil {
		return nil
	}
	return end(l.child)
}

// Of include/uapi/linux/audit.h.
const (
	auditSet, auditAddRule                                          = 1001, 1011
	auditStatusEnabled, auditStatusPID, auditStatusBacklog          = 1, 4, 16
	auditFilterExit, auditAlways, auditArch, auditEqual, archX86_64 = 4, 2, 11, 0x40000000, 0xc000003e
)

// audited are the calls that can be audited here.
var audited = map[string]int{"execve": unix.SYS_EXECVE, "openat": unix.SYS_OPENAT}

// audit becomes the kernel's audit daemon, with a rule as `auditctl -a always,exit -F arch=b64 -S CALL,CALL` makes it, and reads.
func audit(calls string) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		return fmt.Errorf("open a socket to the audit: %w", err)
	}
	status := make([]byte, 40)
	binary.NativeEndian.PutUint32(status[0:], auditStatusEnabled|auditStatusPID|auditStatusBacklog)
	binary.NativeEndian.PutUint32(status[4:], 1)
	binary.NativeEndian.PutUint32(status[12:], uint32(os.Getpid()))
	binary.NativeEndian.PutUint32(status[20:], 8192)
	if err := request(fd, auditSet, status); err != nil {
		return fmt.Errorf("turn the audit on: %w", err)
	}
	const mask, fields, values, operators, size = 12, 12 + 256, 12 + 512, 12 + 768, 12 + 1024 + 4
	rule := make([]byte, size)
	binary.NativeEndian.PutUint32(rule[0:], auditFilterExit)
	binary.NativeEndian.PutUint32(rule[4:], auditAlways)
	binary.NativeEndian.PutUint32(rule[8:], 1)
	for name := range strings.SplitSeq(calls, ",") {
		call, ok := audited[name]
		if !ok {
			return fmt.Errorf("the call %s is not audited here", name)
		}
		rule[mask+call/8] |= 1 << (call % 8)
	}
	binary.NativeEndian.PutUint32(rule[fields:], auditArch)
	binary.NativeEndian.PutUint32(rule[values:], archX86_64)
	binary.NativeEndian.PutUint32(rule[operators:], auditEqual)
	if err := request(fd, auditAddRule, rule); err != nil {
		return fmt.Errorf("add a rule: %w", err)
	}
	if err := os.WriteFile(auditReady, nil, 0o644); err != nil {
		return err
	}
	for buf := make([]byte, 16<<10); ; {
		if _, _, err := unix.Recvfrom(fd, buf, 0); err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("read the audit: %w", err)
		}
	}
}

// request sends one message and waits until the kernel has done it.
func request(fd int, kind uint16, payload []byte) error {
	m := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(payload))
	binary.NativeEndian.PutUint32(m[0:], uint32(unix.SizeofNlMsghdr+len(payload)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	if err := unix.Sendto(fd, append(m, payload...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for buf := make([]byte, 16<<10); ; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return err
		}
		if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR {
			continue // a record that comes already
		}
		if errno := -int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:])); errno != 0 {
			return unix.Errno(errno)
		}
		return nil
	}
}
