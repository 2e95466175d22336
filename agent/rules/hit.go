package rules

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
)

// Hit is one thing that a rule refused, or would have refused.
type Hit struct {
	Rule    Rule
	Time    uint64 // nanoseconds since boot
	Refused bool   // false: the product is braked or in shadow, and it has happened

	PID, Thread, UID uint32
	Start            uint64 // of the process, nanoseconds since boot
	Comm             string

	Name        string     // of the file that it was done to, without directories
	Dev         uint32     // the file's, as the kernel knows it
	Ino         uint64     //
	Target      event.File // what the rule names, as it was when it was installed; zero where that is not known
	Process     uint32     // the process that was traced, 0 for none
	ProcessFrom uint64     // its start
	Destination netip.AddrPort

	Suppressed uint64 // hits like this one, by the same process, since the last that was told
}

const hitSize = 168

// decodeHit reads struct hit of judge.h.
func decodeHit(b []byte) (h Hit, serial uint32, err error) {
	if len(b) < hitSize {
		return h, 0, fmt.Errorf("read a hit: %d bytes, %d expected", len(b), hitSize)
	}
	u32, u64 := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
	h = Hit{
		Time: u64(b), Start: u64(b[8:]), ProcessFrom: u64(b[16:]), Ino: u64(b[24:]), Suppressed: u64(b[32:]),
		PID: u32(b[64:]), Thread: u32(b[68:]), UID: u32(b[72:]), Process: u32(b[76:]), Dev: u32(b[80:]), Refused: b[87] != 0,
		Comm: unix.ByteSliceToString(b[88:104]), Name: unix.ByteSliceToString(b[104:168]),
	}
	if Action(b[86]) == Connect {
		var a [16]byte
		binary.BigEndian.PutUint64(a[:8], u64(b[40:]))
		binary.BigEndian.PutUint64(a[8:], u64(b[48:]))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), binary.NativeEndian.Uint16(b[84:]))
	}
	return h, u32(b[60:]), nil
}
