package recorder

import "sync/atomic"

// Stats is the recorder's account since the agent's start. Every event that the tap heard is in exactly one of Events and the
// losses, or waits to be written.
type Stats struct {
	Events        uint64 // written
	LostSlow      uint64 // they came faster than they were taken
	LostDisk      uint64 // the disk took none
	LostOversized uint64 // larger than a record can be
	Blocks        uint64
	BytesWritten  uint64
	Errors        uint64 // of the disk

	Bytes    uint64 // on disk now
	Bound    uint64 // the most that this may be
	Segments uint64
	Damaged  uint64 // blocks, or pieces of segments, that could not be read at the start
	Torn     uint64 // segments whose end was not written whole
}

type counters struct {
	events, lostSlow, lostDisk, lostOversized, blocks, bytesWritten, errors, bytes, segments, damaged, torn atomic.Uint64
}

func (c *counters) wrote(b *block) {
	c.events.Add(b.events)
	c.blocks.Add(1)
	c.bytesWritten.Add(uint64(len(b.out)))
}

func (c *counters) ring(r *ring) {
	c.bytes.Store(uint64(r.total))
	c.segments.Store(uint64(len(r.list)))
}

// Stats returns the recorder's account. Safe for concurrent use.
func (r *Recorder) Stats() Stats {
	c := &r.stats
	return Stats{
		Events: c.events.Load(), LostSlow: c.lostSlow.Load(), LostDisk: c.lostDisk.Load(), LostOversized: c.lostOversized.Load(),
		Blocks: c.blocks.Load(), BytesWritten: c.bytesWritten.Load(), Errors: c.errors.Load(),
		Bytes: c.bytes.Load(), Bound: uint64(r.cfg.Size), Segments: c.segments.Load(), Damaged: c.damaged.Load(), Torn: c.torn.Load(),
	}
}
