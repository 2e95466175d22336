package sdk

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"

	"golang.org/x/sys/unix"
)

// Question is something in the kernel that waits for this product's answer. Kind, Time, Process and File are fields. It
// is valid until OnQuestion returns; the descriptor is closed then.
type Question struct {
	*productv1.Question
	ID  uint64 // the agent's number of the question
	Seq uint64 // this product's own contiguous count of questions

	session  *Session
	flags    uint16
	fd       int
	deadline atomic.Uint64 // CLOCK_BOOTTIME nanoseconds, 0 for none
	epoch    uint64        // of the agent that asked

	mu        sync.Mutex
	withdrawn bool
	ctx       context.Context // made when first used
	cancel    context.CancelCauseFunc
	timer     *time.Timer
}

// ErrWithdrawn is the cause of a question's context when the question was decided without this product, or the agent that
// asked it is gone.
var ErrWithdrawn = fmt.Errorf("the question is decided: %w", context.Canceled)

// FD returns a read-only descriptor of the very file, -1 if the agent could not pass one. It may be passed on to another
// process until OnQuestion returns. Its offset is shared with other products: use pread, or Reader.
func (q *Question) FD() int { return q.fd }

// Reader reads the file without moving the offset, which other products share.
func (q *Question) Reader() io.ReaderAt { return preader(q.fd) }

// Shadow reports whether the answer is only recorded.
func (q *Question) Shadow() bool { return q.flags&productv1.FlagShadow != 0 }

// Critical reports whether the file belongs to the machine's critical set. A deny counts only with the grant deny_critical.
func (q *Question) Critical() bool { return q.flags&productv1.FlagCritical != 0 }

// Deadline returns when the agent stops waiting for this product; the zero time when it does not wait.
func (q *Question) Deadline() time.Time {
	d := q.deadline.Load()
	if d == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(d - boottime()))
}

// Extend asks for time until d from now, up to the operator's cap. There is no reply: the agent waits for the lesser of
// d and the cap, so Deadline is then the latest possible moment.
func (q *Question) Extend(d time.Duration) error {
	deadline := boottime() + uint64(max(d, 0))
	h := productv1.Header{Kind: productv1.FrameExtend, ID: q.ID, Seq: q.Seq, Deadline: deadline}
	if err := q.session.sock.Send(&h, nil, -1, wire.Block); err != nil {
		return fmt.Errorf("extend question %d: %w", q.ID, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if deadline > q.deadline.Load() {
		q.deadline.Store(deadline)
		if q.timer != nil {
			q.timer.Reset(d)
		}
	}
	return nil
}

// Report is Session.Report with the question's id, file and process filled in where f has none.
func (q *Question) Report(f Finding) error {
	if f.QuestionID == 0 {
		f.QuestionID = q.ID
	}
	if f.File == nil {
		f.File = q.GetFile()
	}
	if f.Target == nil {
		f.Target = q.GetProcess().GetKey()
	}
	return q.session.Report(f)
}

// Session returns the conversation that the question came through.
func (q *Question) Session() *Session { return q.session }

func boottime() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("sdk: the kernel has no CLOCK_BOOTTIME: " + err.Error()) // it has since Linux 2.6.39
	}
	return uint64(ts.Nano())
}

// preader is a descriptor read by pread.
type preader int

// ReadAt implements io.ReaderAt.
func (fd preader) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pread(int(fd), p[n:], off+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, fmt.Errorf("read the question's file: %w", err)
		}
		if m == 0 {
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}
