package sdk

import (
	"fmt"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"
)

// The words of Finding.Action.
const (
	Denied    = "denied"     // the question was denied for it
	WouldDeny = "would_deny" // it would have been denied, but the product only watches
	Detected  = "detected"   // nothing was asked
)

// Finding is what a product detected.
type Finding struct {
	Rule       string // the product's own name of the rule or signature
	Title      string // one line for a human
	Severity   Severity
	QuestionID uint64 // the question it belongs to, so that it joins the verdict; 0 if none
	Action     string // Denied, WouldDeny or Detected
	File       *File  // nil if none
	Target     *ProcessKey
	Fields     map[string]string
}

// Report tells the operator what the product detected. Safe for concurrent use; it waits while the agent is busy.
func (s *Session) Report(f Finding) error {
	m := &productv1.Finding{
		Rule: f.Rule, Title: f.Title, Severity: f.Severity, QuestionId: f.QuestionID, Action: f.Action,
		File: f.File, Target: f.Target, Fields: f.Fields,
	}
	b, err := m.MarshalVT()
	if err != nil {
		return fmt.Errorf("encode finding %s: %w", f.Rule, err)
	}
	if len(b) > productv1.MaxFinding {
		return fmt.Errorf("finding %s has %d bytes, at most %d are taken", f.Rule, len(b), productv1.MaxFinding)
	}
	h := productv1.Header{Kind: productv1.FrameFinding, ID: f.QuestionID}
	if err := s.sock.Send(&h, b, -1, wire.Block); err != nil {
		return fmt.Errorf("report finding %s: %w", f.Rule, err)
	}
	return nil
}
