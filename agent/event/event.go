package event

// Event is one thing that happened. Exactly one of the detail pointers that fits Kind is set. Immutable once emitted.
type Event struct {
	Kind    Kind
	Seq     uint64   // global, contiguous from 1 per agent start; given by the hub
	Time    uint64   // nanoseconds since boot (CLOCK_BOOTTIME)
	Process *Process // who did it; nil for events of the agent itself

	Exec    *ExecDetail
	Fork    *ForkDetail
	Exit    *ExitDetail
	File    *FileDetail // Open, Create, CloseWrite, Rename, Unlink, Attrib
	Verdict *VerdictDetail
	Finding *FindingDetail
	Product *ProductDetail
	Health  *HealthDetail
	Tamper  *TamperDetail
}

// ExecDetail belongs to Exec. Event.Process is the process after the exec.
type ExecDetail struct {
	Argv          []string // cut at 4 KiB in all
	ArgvTruncated bool
	Argc          uint32
	EnvSize       uint32 // bytes of the environment block
	CWD           string
	Script        string     // the file whose #! line made Executable run; empty for an ELF
	Previous      ProcessKey // the same key; kept for symmetric schemas
	PreviousExe   string     // path of the executable before
}

// ForkDetail belongs to Fork. Event.Process is the parent.
type ForkDetail struct {
	Child *Process
}

// ExitDetail belongs to Exit.
type ExitDetail struct {
	Code   int32 // exit status, 0–255
	Signal int32 // signal that ended it, 0 if none
}

// FileDetail belongs to the file kinds.
type FileDetail struct {
	File File
	From string // Rename: the old path
}

// VerdictDetail is the outcome of one question (Kind Verdict).
type VerdictDetail struct {
	QuestionID uint64
	Asked      Kind // Exec or Open
	File       File
	Decision   Decision
	Answers    []Answer // one per product that was asked, live and shadow
	Latency    uint64   // nanoseconds from the kernel's event being read to the answer
}

// Answer is what one product said to one question, or why it said nothing.
type Answer struct {
	Product string
	Shadow  bool // recorded, did not count
	Outcome AnswerOutcome
	Allow   bool   // what counted: the product's word or its on_miss
	Latency uint64 // nanoseconds until it answered; 0 for a miss
}

// AnswerOutcome says how an Answer came about.
type AnswerOutcome uint8

// The outcomes.
const (
	Answered   AnswerOutcome = iota + 1
	Missed                   // silent until its budget ended: on_miss counted
	Unsent                   // its socket was full: an immediate miss
	Gone                     // it died or was stopped while being asked
	Unneeded                 // another product's deny came first
	Overridden               // it denied what it may not deny (critical set, brake, no grant)
)

var answerOutcomes = [...]string{Answered: "answered", Missed: "missed", Unsent: "unsent", Gone: "gone", Unneeded: "unneeded", Overridden: "overridden"}

// String returns the outcome's word.
func (o AnswerOutcome) String() string {
	if int(o) < len(answerOutcomes) && answerOutcomes[o] != "" {
		return answerOutcomes[o]
	}
	return "unknown"
}

// Severity orders findings.
type Severity uint8

// The severities.
const (
	Info Severity = iota + 1
	Low
	Medium
	High
	Critical
)

var severities = [...]string{Info: "info", Low: "low", Medium: "medium", High: "high", Critical: "critical"}

// String returns the severity's word.
func (s Severity) String() string {
	if int(s) < len(severities) && severities[s] != "" {
		return severities[s]
	}
	return "unknown"
}

// FindingDetail is what a product detected (Kind Finding).
type FindingDetail struct {
	Product    string
	Rule       string // the product's own name of the rule or signature
	Title      string // one line for a human
	Severity   Severity
	QuestionID uint64 // the question it belongs to, 0 if none
	Action     string // "denied", "would_deny", "detected"
	File       File   // zero if none
	Target     ProcessKey
	Fields     map[string]string
}

// ProductDetail is a product's change of state (Kind Product).
type ProductDetail struct {
	Product   string
	Release   string
	State     string // starting, running, stopping, stopped, backoff, failed
	Authority string // live, shadow, degraded, braked, off
	Reason    string
	Restarts  uint32
}

// HealthDetail is a health entry that changed (Kind Health).
type HealthDetail struct {
	Component string
	Status    string // ok, degraded, failed
	Summary   string
	Remedy    string
}

// TamperDetail is something that was tried against the platform (Kind Tamper); Event.Process tried it.
type TamperDetail struct {
	Hook       string // what saw it
	Refused    bool   // it has not happened
	Undone     bool   // it has, and the agent undid it
	Target     ProcessKey
	Name       string // of the file that it was done to, without directories
	Detail     uint64 // a signal, a request, a mode: by the hook
	Suppressed uint64 // attempts like this one, by the same process, since the last event
}
