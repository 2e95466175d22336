package file

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The ledger is a fanotify group of its own that has one mark on each superblock that was handled: an ignore mask without a
// mask, which never makes an event. Mount ids and device numbers are reused as soon as they are free, so that a list of
// ours could take a new file system for one that is marked already. The kernel's list cannot: a mark dies with its
// superblock. Having it also means that a known file system is never looked up again, which could make an umount fail with
// EBUSY.

// inLedger marks the superblock behind the open O_PATH descriptor whose link is given.
func (s *Sensor) inLedger(link []byte) unix.Errno {
	const flags = unix.FAN_MARK_ADD | unix.FAN_MARK_FILESYSTEM | unix.FAN_MARK_IGNORED_MASK | unix.FAN_MARK_IGNORED_SURV_MODIFY
	return sysMarkPath(s.ledger, flags, unix.FAN_OPEN, link)
}

// ledgerDevs returns the superblocks that are marked now.
func (s *Sensor) ledgerDevs() (map[uint64]struct{}, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", s.ledger))
	if err != nil {
		return nil, fmt.Errorf("read the ledger of marked file systems: %w", err)
	}
	return parseLedger(data), nil
}

// parseLedger reads the lines "fanotify sdev:HEX mflags:..." of fdinfo. Others are not its own.
func parseLedger(data []byte) map[uint64]struct{} {
	out := make(map[uint64]struct{})
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		rest, ok := bytes.CutPrefix(line, []byte("fanotify sdev:"))
		if !ok {
			continue
		}
		hex, _, _ := bytes.Cut(rest, []byte(" "))
		v, err := strconv.ParseUint(string(hex), 16, 32)
		if err != nil {
			continue
		}
		// The kernel prints its internal dev_t: 12 bits of major above 20 bits of minor.
		out[makeDev(v>>20, v&(1<<20-1))] = struct{}{}
	}
	return out
}
