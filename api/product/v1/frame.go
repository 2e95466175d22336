package productv1

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// FrameKind says what a frame is. Kinds below 64 go from the agent to the product, kinds from 64 the other way.
type FrameKind uint16

// The frame kinds of protocol 1.
const (
	FrameWelcome    FrameKind = 1  // payload Welcome; the first frame
	FrameSubscribed FrameKind = 2  // payload Subscribed
	FrameQuestion   FrameKind = 3  // payload Question, one descriptor
	FrameEvent      FrameKind = 4  // payload Event
	FrameLost       FrameKind = 5  // payload Lost
	FrameState      FrameKind = 6  // payload State
	FrameStop       FrameKind = 7  // no payload: finish and exit; the socket closes at the deadline
	FrameWithdrawn  FrameKind = 8  // no payload: question id is decided, an answer is no longer needed
	FrameResume     FrameKind = 9  // payload Welcome: another agent took the conversation over; id names that
	FrameRuleStatus FrameKind = 10 // payload RuleStatus; id is that of the frame that it replies to, 0 for none

	FrameSubscribe   FrameKind = 64 // payload Subscribe
	FrameAnswer      FrameKind = 65 // no payload: id, seq and flags say it all
	FrameExtend      FrameKind = 66 // no payload: question id needs until deadline
	FrameFinding     FrameKind = 67 // payload Finding
	FrameAck         FrameKind = 68 // no payload: every event up to seq has been handled
	FrameRuleInstall FrameKind = 69 // payload RuleInstall; id is the product's, for the reply
	FrameRuleRemove  FrameKind = 70 // payload RuleRemove; id is the product's, for the reply

	FrameUnsupported FrameKind = 127 // payload Unsupported; both ways
)

// Flags of a frame. Each is defined for the kinds named; others are sent as 0 and ignored.
const (
	FlagDeny      uint16 = 1 << 0 // Answer: deny (clear: allow)
	FlagCacheFile uint16 = 1 << 1 // Answer: this verdict depends on the file's content alone, not on who asks
	FlagShadow    uint16 = 1 << 2 // Question: the answer is recorded and does not count
	FlagCritical  uint16 = 1 << 3 // Question: the file is in the critical set
)

// Sizes in bytes.
const (
	HeaderSize  = 32
	MaxFrame    = 64 << 10 // a whole frame, header included
	MaxDatagram = 32 << 10 // several notify frames packed into one datagram; a single frame may be larger
	MaxRule     = 4 << 10  // a RuleInstall's or RuleRemove's payload
	MaxFinding  = 16 << 10 // a Finding's payload; it must fit an event together with what the agent adds
)

// Protocol is the protocol version of this package.
const Protocol = 1

// Header is the fixed little-endian start of every frame:
//
//	offset size
//	0      4    length of the whole frame in bytes, header included
//	4      2    kind
//	6      2    flags
//	8      8    id: the question's id
//	16     8    seq: the product's own contiguous number, one count for events and one for questions
//	24     8    deadline, nanoseconds since boot (CLOCK_BOOTTIME), 0 for none
type Header struct {
	Length   uint32
	Kind     FrameKind
	Flags    uint16
	ID       uint64
	Seq      uint64
	Deadline uint64
}

// Put writes h to the first HeaderSize bytes of b, which must be that long.
func (h *Header) Put(b []byte) {
	_ = b[HeaderSize-1]
	binary.LittleEndian.PutUint32(b[0:], h.Length)
	binary.LittleEndian.PutUint16(b[4:], uint16(h.Kind))
	binary.LittleEndian.PutUint16(b[6:], h.Flags)
	binary.LittleEndian.PutUint64(b[8:], h.ID)
	binary.LittleEndian.PutUint64(b[16:], h.Seq)
	binary.LittleEndian.PutUint64(b[24:], h.Deadline)
}

// ErrFrame is the class of every malformed frame.
var ErrFrame = errors.New("malformed frame")

// Next cuts the first frame from b: its header, its payload (aliasing b) and what follows it. io errors are the caller's;
// a frame that is cut short or whose length is impossible is ErrFrame.
func Next(b []byte) (h Header, payload, rest []byte, err error) {
	if len(b) < HeaderSize {
		return h, nil, nil, fmt.Errorf("%w: %d bytes, a header has %d", ErrFrame, len(b), HeaderSize)
	}
	h.Length = binary.LittleEndian.Uint32(b[0:])
	h.Kind = FrameKind(binary.LittleEndian.Uint16(b[4:]))
	h.Flags = binary.LittleEndian.Uint16(b[6:])
	h.ID = binary.LittleEndian.Uint64(b[8:])
	h.Seq = binary.LittleEndian.Uint64(b[16:])
	h.Deadline = binary.LittleEndian.Uint64(b[24:])
	if h.Length < HeaderSize || h.Length > MaxFrame {
		return h, nil, nil, fmt.Errorf("%w: length %d, allowed %d to %d", ErrFrame, h.Length, HeaderSize, MaxFrame)
	}
	if int(h.Length) > len(b) {
		return h, nil, nil, fmt.Errorf("%w: length %d, only %d bytes left", ErrFrame, h.Length, len(b))
	}
	return h, b[HeaderSize:h.Length], b[h.Length:], nil
}
