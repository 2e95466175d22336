package sdk

import (
	productv1 "bailey/api/product/v1"

	"google.golang.org/protobuf/proto"
)

// Kind names what happened or what is asked.
type Kind = productv1.Kind

// The kinds. Exec and Open can be asked; all can be events.
const (
	Exec       = productv1.Kind_exec
	Fork       = productv1.Kind_fork
	Exit       = productv1.Kind_exit
	Open       = productv1.Kind_open
	Create     = productv1.Kind_create
	CloseWrite = productv1.Kind_close_write
	Rename     = productv1.Kind_rename
	Unlink     = productv1.Kind_unlink
	Attrib     = productv1.Kind_attrib

	VerdictKind = productv1.Kind_verdict // a question's outcome, with every product's answer
	FindingKind = productv1.Kind_finding // what a product detected
	ProductKind = productv1.Kind_product // a product changed its state
	HealthKind  = productv1.Kind_health  // a part of the agent degraded or recovered
	TamperKind  = productv1.Kind_tamper  // somebody tried something against the platform
)

// The messages of the protocol, as the agent sends them.
type (
	Event       = productv1.Event
	Process     = productv1.Process
	ProcessKey  = productv1.ProcessKey
	Credentials = productv1.Credentials
	File        = productv1.File
	Grants      = productv1.Grants
)

// Severity orders findings.
type Severity = productv1.Severity

// The severities.
const (
	Info     = productv1.Severity_info
	Low      = productv1.Severity_low
	Medium   = productv1.Severity_medium
	High     = productv1.Severity_high
	Critical = productv1.Severity_critical
)

// Clone returns a copy of e that may be kept after OnEvent has returned.
func Clone(e *Event) *Event { return detach(e, new(Event)) }

// CloneFile returns a copy of f that may be kept after the handler has returned.
func CloneFile(f *File) *File { return detach(f, new(File)) }

// CloneProcess returns a copy of p that may be kept after the handler has returned.
func CloneProcess(p *Process) *Process { return detach(p, new(Process)) }

// detach copies by encoding and decoding: proto.Clone would share the strings, which lie in the reader's buffer.
func detach[M interface {
	proto.Message
	MarshalVT() ([]byte, error)
	UnmarshalVT([]byte) error
}](from, to M) M {
	b, err := from.MarshalVT()
	if err == nil {
		err = to.UnmarshalVT(b)
	}
	if err != nil { // only a string that is not UTF-8 could do this, and it was decoded from the same form
		panic("sdk: a decoded message cannot be encoded: " + err.Error())
	}
	return to
}
