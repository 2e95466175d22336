package event

import "sync/atomic"

// Reason says which party or rule made a Decision.
type Reason uint8

// The reasons.
const (
	ByProducts   Reason = iota + 1 // every live product answered, or one denied
	ByDefault                      // at least one live product's on_miss counted
	ByCache                        // the agent's own verdict cache
	ByShare                        // an equal question in flight was asked for all
	ByNobody                       // no product is subscribed
	ByIdentity                     // the asker is the platform, a product or one of its granted daemons
	ByNeverAsk                     // the asker is in the never-ask set; products got it as shadow
	ByOverload                     // too many questions in flight
	ByShutdown                     // the agent is stopping
	ByIncomplete                   // the event could not be read whole (lost process, unreadable file)
)

var reasons = [...]string{
	ByProducts: "products", ByDefault: "default", ByCache: "cache", ByShare: "share", ByNobody: "nobody",
	ByIdentity: "identity", ByNeverAsk: "never_ask", ByOverload: "overload", ByShutdown: "shutdown", ByIncomplete: "incomplete",
}

// Reasons lists every reason in numeric order.
func Reasons() []Reason {
	var out []Reason
	for r := ByProducts; r <= ByIncomplete; r++ {
		out = append(out, r)
	}
	return out
}

// String returns the reason's word.
func (r Reason) String() string {
	if int(r) < len(reasons) && reasons[r] != "" {
		return reasons[r]
	}
	return "unknown"
}

// Decision is the merged result that goes to the kernel.
type Decision struct {
	Allow  bool
	Reason Reason
	// CacheFile is set when every live product allowed and said that its answer depends on the file alone; only then may
	// the kernel be told not to ask again.
	CacheFile bool
}

// Answerer is the sensor that must hand a question's verdict to the kernel.
//
// Answer is called exactly once per question, from any goroutine, must not block on anything that a file opener can hold,
// and must hand the verdict to the kernel before it does anything else. Release is called exactly once, after Answer and
// after the last use of Question.FD; it closes the descriptor and may recycle the question.
type Answerer interface {
	Answer(q *Question, d Decision)
	Release(q *Question)
}

// Question is something in the kernel that waits for a verdict. A sensor makes it, the verdict engine owns it until it is
// answered and released. Not safe for concurrent use but for Answer, Hold and Release.
type Question struct {
	ID       uint64 // unique per agent start
	Kind     Kind   // Exec or Open
	Time     uint64 // when it was read, nanoseconds since boot (CLOCK_BOOTTIME)
	PID      uint32 // the asking thread group, as seen in the agent's pid namespace; 0 when outside of it
	Process  *Process
	File     File
	FD       int  // read-only descriptor of the very file
	NeverAsk bool // answered at once; products get it as shadow

	// Unwatched says that nobody will tell when this file is written, e.g. through a mapping on an overlay: no verdict about
	// it may be remembered.
	Unwatched bool

	Source Answerer

	answered atomic.Bool
	refs     atomic.Int32
}

// Reset prepares a recycled question: unanswered, held once.
func (q *Question) Reset() {
	*q = Question{FD: -1}
	q.refs.Store(1)
}

// Answer hands d to the kernel if nobody has answered yet and reports whether it did.
func (q *Question) Answer(d Decision) bool {
	if !q.answered.CompareAndSwap(false, true) {
		return false
	}
	q.Source.Answer(q, d)
	return true
}

// Answered reports whether the kernel has its verdict.
func (q *Question) Answered() bool { return q.answered.Load() }

// Hold adds a user of q and its descriptor.
func (q *Question) Hold() { q.refs.Add(1) }

// Release ends one use of q. The last release of an unanswered question answers it "allow, incomplete" first, so that no
// error path can leave an opener waiting.
func (q *Question) Release() {
	if q.refs.Add(-1) != 0 {
		return
	}
	q.Answer(Decision{Allow: true, Reason: ByIncomplete})
	q.Source.Release(q)
}
