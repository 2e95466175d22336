package recorder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"bailey/agent/event"
)

// Type says what a Record is.
type Type uint8

// The types. The numbers are those on disk.
const (
	Event Type = 1 // something that happened
	Loss  Type = 2 // events that are missing here
	Start Type = 3 // the agent started
	End   Type = 4 // the agent ended as it was told to
)

// Why events are missing.
const (
	CauseSlow      = "slow"      // they came faster than they were taken
	CauseDisk      = "disk"      // they could not be written
	CauseOversized = "oversized" // an event that no record can hold
)

// Record is one entry of the recorder.
type Record struct {
	Type Type
	Time uint64    // nanoseconds since boot
	Wall time.Time // the same by the clock on the wall
	Boot string    // which boot, as /proc/sys/kernel/random/boot_id says it; empty when unknown
	Run  uint64    // when the agent that recorded it had started; Event.Seq is contiguous within

	Event   *event.Event // Event
	Payload []byte       // Event: as it was encoded
	Lost    uint64       // Loss: how many
	Cause   string       // Loss
	Version string       // Start: the agent's
}

// Asked returns the question that a recorded verdict was given to, as it could be asked again: without its descriptor.
func Asked(e *event.Event) (*event.Question, bool) {
	if e == nil || e.Verdict == nil {
		return nil, false
	}
	v := e.Verdict
	return &event.Question{
		ID: v.QuestionID, Kind: v.Asked, Time: e.Time - min(e.Time, v.Latency), Process: e.Process, File: v.File, FD: -1,
		PID: pidOf(e.Process),
	}, true
}

func pidOf(p *event.Process) uint32 {
	if p == nil {
		return 0
	}
	return p.Key.PID
}

// appendRecord appends a record to the content of a block.
func appendRecord(raw []byte, t Type, body []byte) []byte {
	raw = append(raw, byte(t))
	raw = binary.AppendUvarint(raw, uint64(len(body)))
	return append(raw, body...)
}

func appendLoss(dst []byte, at, lost uint64, cause string) []byte {
	return append(binary.AppendUvarint(binary.AppendUvarint(dst, at), lost), cause...)
}

func appendNote(dst []byte, at uint64, text string) []byte {
	return append(binary.AppendUvarint(dst, at), text...)
}

var errRecord = errors.New("a record does not end where it should")

// cutRecord takes the first record off raw.
func cutRecord(raw []byte) (t Type, body, rest []byte, err error) {
	if len(raw) == 0 {
		return 0, nil, nil, errRecord
	}
	n, used := binary.Uvarint(raw[1:])
	if used <= 0 || n > uint64(len(raw)-1-used) {
		return 0, nil, nil, errRecord
	}
	at := 1 + used
	return Type(raw[0]), raw[at : at+int(n)], raw[at+int(n):], nil
}

// parseNote reads the body of a record that is no event into r.
func (r *Record) parseNote(body []byte) error {
	at, n := binary.Uvarint(body)
	if n <= 0 {
		return errRecord
	}
	r.Time, body = at, body[n:]
	switch r.Type {
	case Loss:
		if r.Lost, n = binary.Uvarint(body); n <= 0 {
			return errRecord
		}
		r.Cause = string(body[n:])
	case Start:
		r.Version = string(body)
	case End:
	default:
		return fmt.Errorf("record of unknown type %d", r.Type)
	}
	return nil
}
