package file

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"bailey/internal/kerneldev"
)

// The ledger is a fanotify group of its own that has one mark on each superblock that was handled: an ignore mask without a
// mask, which never makes an event. Mount ids and device numbers are reused as soon as they are free, so that a list of
// ours could take a new file system for one that is marked already. The kernel's list cannot: a mark dies with its
// superblock. Having it also means that a known file system is never looked up again, which could make an umount fail with
// EBUSY.
//
// What is ignored counts as wanted where the kernel decides whether to look at an event at all: a ledger that ignored opens
// made every open, read and close of a watched file system 7 to 12 % slower. Closed writers are looked at anyway, for the
// cache.

// inLedger marks the superblock behind the open O_PATH descriptor whose link is given.
func (s *Sensor) inLedger(link []byte) unix.Errno {
	const flags = unix.FAN_MARK_ADD | unix.FAN_MARK_FILESYSTEM | unix.FAN_MARK_IGNORED_MASK | unix.FAN_MARK_IGNORED_SURV_MODIFY
	return sysMarkPath(s.ledger, flags, unix.FAN_CLOSE_WRITE, link)
}

// ledgerDevs returns the superblocks that are marked now.
func (s *Sensor) ledgerDevs() (map[uint64]struct{}, error) {
	masks, err := markedIn(s.ledger)
	if err != nil {
		return nil, fmt.Errorf("read the ledger of marked file systems: %w", err)
	}
	out := make(map[uint64]struct{}, len(masks))
	for dev := range masks {
		out[dev] = struct{}{}
	}
	return out, nil
}

// markedIn returns the masks of the file system marks of a group.
func markedIn(group int) (map[uint64]uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", group))
	if err != nil {
		return nil, err
	}
	return parseMarks(data), nil
}

// parseMarks reads the lines "fanotify sdev:HEX mflags:HEX mask:HEX ..." of fdinfo. Others are not file systems'.
func parseMarks(data []byte) map[uint64]uint64 {
	out := make(map[uint64]uint64)
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		if !bytes.HasPrefix(line, []byte("fanotify sdev:")) {
			continue
		}
		dev, ok := hexField(line, "sdev:")
		if !ok {
			continue
		}
		mask, _ := hexField(line, " mask:")
		major, minor := kerneldev.Split(uint32(dev))
		out[makeDev(uint64(major), uint64(minor))] |= mask
	}
	return out
}

// hexField returns the hexadecimal number that follows name in line.
func hexField(line []byte, name string) (uint64, bool) {
	_, rest, ok := bytes.Cut(line, []byte(name))
	if !ok {
		return 0, false
	}
	hex, _, _ := bytes.Cut(rest, []byte(" "))
	v, err := strconv.ParseUint(string(hex), 16, 32)
	return v, err == nil
}
