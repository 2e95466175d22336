package journal

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"bailey/agent/health"

	"golang.org/x/sys/unix"
)

// maxFields bounds the fields of one line; more is replaced by its size and hash.
const maxFields = maxLine / 2

// lineOverhead is about what a line has besides its fields.
const lineOverhead = 320

// take makes the item's text and queues it for the disk.
func (j *Journal) take(it *item) {
	if it.event != nil {
		it.fields = eventFields(it.event)
	}
	text, err := encode(it.fields)
	switch {
	case err != nil:
		text, err = encode(map[string]any{"unreadable": err.Error()})
	case len(text) == 0 || text[0] != '{':
		text, err = encode(map[string]any{"value": it.fields})
	}
	if err == nil && len(text) > maxFields {
		text, err = encode(map[string]any{"cut": true, "bytes": len(text), "sha256": Hash(sha256.Sum256(text)).String()})
	}
	if err != nil { // unreachable: maps of words and numbers can be encoded
		text = []byte("{}")
	}
	it.text, it.fields, it.event = text, nil, nil
	if it.done == nil && !j.pace.admit(it.kind, len(text)+lineOverhead, time.Since(j.start)) {
		j.losses.add(lossKey{it.kind, causeFlood, it.product}, 1, it.boot)
		return
	}
	if len(j.pending) >= maxPending {
		j.losses.add(lossKey{it.kind, causeDisk, it.product}, 1, it.boot)
		it.release(errors.Join(ErrLate, j.err))
		return
	}
	j.pending = append(j.pending, it)
}

// release tells whoever waits for the item, once.
func (it *item) release(err error) {
	if it.done != nil {
		it.done <- err
		it.done = nil
	}
}

// sumUp queues a line that says what was lost, if that is due.
func (j *Journal) sumUp(now bool) {
	some, real := j.losses.some()
	wait := j.cfg.SumUp
	if real {
		wait = min(wait, time.Second)
	}
	if !some || j.err != nil || !now && time.Since(j.summed) < wait {
		return
	}
	fields := j.losses.take()
	text, err := encode(fields)
	if err != nil || len(j.pending) >= maxPending {
		j.losses.putBack(fields)
		return
	}
	j.summed = time.Now()
	j.pending = append(j.pending, &item{kind: KindLost, wall: j.cfg.Now(), boot: j.cfg.Boot(), text: text})
}

// write hands to the disk what is pending, and syncs if somebody waits for it or it is time.
func (j *Journal) write(now bool) {
	waits := false
	for _, it := range j.pending {
		waits = waits || it.done != nil
	}
	if j.err != nil && !now && !waits && time.Now().Before(j.retry) {
		return
	}
	n, err := j.writePending()
	if err == nil && (now || waits || j.err != nil || j.chain.unsynced && time.Since(j.written) >= j.cfg.Sync) {
		err = j.chain.sync()
	}
	if j.lines.Add(uint64(n)); err != nil {
		j.refused(err)
	} else {
		j.accepted()
	}
	for i, it := range j.pending {
		if err != nil || i < n {
			it.release(err)
		}
	}
	clear(j.pending[:n])
	j.pending = append(j.pending[:0], j.pending[n:]...)
}

// writePending returns how many of the pending items are written.
func (j *Journal) writePending() (int, error) {
	was := j.chain.unsynced
	n, err := j.chain.write(j.pending)
	if j.chain.unsynced && !was {
		j.written = time.Now()
	}
	return n, err
}

// refused notes that the disk does not take what is written.
func (j *Journal) refused(err error) {
	j.err, j.retry = err, time.Now().Add(j.cfg.Retry)
	j.refuse.Store(true)
	j.publish()
	j.cfg.Health.Set(health.Entry{
		Component: Component, Status: health.Failed,
		Summary: fmt.Sprintf("what happens is not being recorded: %v", err), Remedy: j.remedy(err),
	})
}

func (j *Journal) remedy(err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Sprintf("make room, in bytes and inodes, on the file system of %s; recording goes on by itself", j.cfg.Dir)
	case errors.Is(err, unix.EROFS):
		return fmt.Sprintf("mount the file system of %s for writing; recording goes on by itself", j.cfg.Dir)
	case errors.Is(err, unix.EIO):
		return fmt.Sprintf("look after the disk that holds %s", j.cfg.Dir)
	}
	return fmt.Sprintf("see to it that the agent can write in %s; recording goes on by itself", j.cfg.Dir)
}

// accepted notes that the disk takes what is written.
func (j *Journal) accepted() {
	j.err = nil
	j.refuse.Store(false)
	j.publish()
	if j.path != j.chain.path { // elsewhere than here the head is an anchor, and the agent's log often ends up elsewhere
		j.path = j.chain.path
		j.cfg.Log.Info("journal segment begins", "path", j.path, "seq", j.chain.seq, "hash", j.chain.prev.String())
	}
	j.cfg.Health.Set(health.Entry{Component: Component, Status: health.OK, Summary: "grants, operators' actions and denies are recorded in " + j.cfg.Dir})
}

func (j *Journal) publish() {
	if c := j.chain; c.seq > 0 {
		j.head.Store(&Head{Seq: c.seq, Hash: c.prev, Time: c.time})
	}
}

// tampered tells the operator that somebody else wrote to the journal.
func (j *Journal) tampered(b broken) {
	where := b.Segment
	if b.Line > 0 {
		where = fmt.Sprintf("%s, line %d", b.Segment, b.Line)
	}
	j.cfg.Health.Set(health.Entry{
		Component: ChainComponent, Status: health.Failed,
		Summary: fmt.Sprintf("somebody else than the agent changed the journal: %s: %s", where, b.What),
		Remedy:  "find out who; `bailey journal verify` names what is left; recording goes on in a new segment",
	})
	j.cfg.Log.Error("the journal was changed by somebody else", "path", where, "err", b.What)
}
