package client

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"bailey/update/trust"
)

// State is where an update is on its way.
type State string

// The states. What is in the past tense is an end.
const (
	Fetch    State = "fetch"     // its bundle, or a delta to it, is being downloaded
	Stage    State = "stage"     // it is verified, unpacked and put together with what belongs to it
	Approve  State = "approve"   // it waits for the operator's word
	Rehearse State = "rehearse"  // it is tried against this machine's past
	Shadow   State = "shadow"    // it runs beside the installed release, and its answers are compared
	Promote  State = "promote"   // it is put into the place of the installed release
	Watch    State = "watch"     // it is in force, and goes back at the first harm
	RollBack State = "roll_back" // the release before it is put back

	Committed  State = "committed"
	Refused    State = "refused"     // it never got a say
	RolledBack State = "rolled_back" // it had one
	Superseded State = "superseded"  // it never got a say: another took its place, or the operator wants it no more
)

// moves are all states, and all that an update can do. A step ends in one of the states of its line, or where it began.
var moves = map[State][]State{
	Fetch:    {Stage, Refused, Superseded},
	Stage:    {Fetch, Approve, Rehearse, Refused, Superseded},
	Approve:  {Stage, Rehearse, Refused, Superseded},
	Rehearse: {Stage, Shadow, Refused, Superseded},
	Shadow:   {Stage, Promote, Refused, Superseded},
	Promote:  {Stage, Watch, Refused, Superseded},
	Watch:    {Committed, RollBack},
	RollBack: {RolledBack},

	Committed: nil, Refused: nil, RolledBack: nil, Superseded: nil,
}

// steps are what is done in a state. Fetch has none: it needs a look at the repository, and is done by it (look.go).
var steps = map[State]func(*Client, context.Context, *job) (outcome, error){
	Stage:    (*Client).stage,
	Approve:  (*Client).approve,
	Rehearse: (*Client).rehearse,
	Shadow:   (*Client).shadow,
	Promote:  (*Client).promote,
	Watch:    (*Client).watch,
	RollBack: (*Client).rollBack,
}

// Ended reports whether nothing more happens in the state.
func (s State) Ended() bool { return len(moves[s]) == 0 }

// before reports whether an update in this state has had no say yet.
func (s State) before() bool { return s != Watch && s != RollBack && !s.Ended() }

// around reports whether something may run beside the installed release for the sake of an update in this state.
func (s State) around() bool { return s == Shadow || s == Promote || s == Watch || s == RollBack }

// Update is one release on its way.
type Update struct {
	Offer    trust.Offer `json:"offer"`
	State    State       `json:"state"`
	Reason   string      `json:"reason,omitempty"` // why it is there, or what it waits for
	Began    time.Time   `json:"began"`
	Changed  time.Time   `json:"changed"`            // when it came into its state
	Attempts int         `json:"attempts,omitempty"` // of the present step that failed
	Next     time.Time   `json:"next,omitzero"`      // not to be tried before

	Replaces string    `json:"replaces,omitempty"` // the version that was installed when it began
	Bundle   string    `json:"bundle,omitempty"`   // the file that was fetched
	Base     string    `json:"base,omitempty"`     // if that is a delta: the version that it begins at
	NoDelta  bool      `json:"no_delta,omitempty"` // a delta did not fit
	Release  string    `json:"release,omitempty"`  // the host's name for what it becomes
	Previous string    `json:"previous,omitempty"` // the host's name for what it replaces
	Asks     []string  `json:"asks,omitempty"`     // what it may not do yet
	Approved bool      `json:"approved,omitempty"` // the operator said yes
	Forced   bool      `json:"forced,omitempty"`   // the operator wants it whatever the rehearsal says
	Until    time.Time `json:"until,omitzero"`     // Shadow, Watch: when that is over

	Rehearsal json.RawMessage `json:"rehearsal,omitempty"` // the host's report
	Shadow    json.RawMessage `json:"shadow,omitempty"`    // the host's comparison
}

// version is the release's.
func (u *Update) version() string { return u.Offer.Release.Version.String() }

// job is one step's view of its stream.
type job struct {
	stream *stream
	update Update // a copy, which the step may read freely
	paused bool
}

// outcome is what came of a step.
type outcome struct {
	to     State // empty: it stays where it is
	reason string
	at     time.Time     // staying: when to look again
	edit   func(*Update) // what the step found out; may be nil
}

func move(to State, format string, args ...any) outcome {
	return outcome{to: to, reason: fmt.Sprintf(format, args...)}
}

func stay(until time.Time, format string, args ...any) outcome {
	return outcome{at: until, reason: fmt.Sprintf(format, args...)}
}

func (o outcome) with(edit func(*Update)) outcome {
	o.edit = edit
	return o
}

// check panics at a move that is not in the table: it is a mistake in this package, and the tests make every move.
func (o outcome) check(from State) {
	if o.to != "" && !slices.Contains(moves[from], o.to) {
		panic(fmt.Sprintf("update/client: a move from %s to %s", from, o.to))
	}
}
