package link

import (
	"errors"
	"fmt"
	"io"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"
)

// Handler is told what the product says. Its methods are called one after the other on Run's thread and must not block on
// anything that a product can hold. A returned error is a fault of the product: an answer to a question that was not
// asked, a second answer, a subscription that makes no sense. What the agent refuses is not a fault. The messages belong
// to the handler.
type Handler interface {
	Answer(id uint64, deny, cacheFile bool) error
	Extend(id, deadline uint64) error
	Subscribe(*productv1.Subscribe) error
	Ack(seq uint64)
	Finding(*productv1.Finding) error
	// InstallRule and RemoveRule must not wait for the kernel or a disk; the reply is SendRuleStatus with the same request.
	InstallRule(request uint64, m *productv1.RuleInstall) error
	RemoveRule(request uint64, m *productv1.RuleRemove) error
}

// Run reads frames until the product closes its socket, Close or Release is called (nil), the product has committed
// Options.FaultLimit faults (ErrFaults), or the socket fails. It blocks an OS thread. Call it once.
func (c *Conn) Run(h Handler) error {
	r, err := wire.NewReader(c.sock, false)
	if errors.Is(err, wire.ErrClosed) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read a product's socket: %w", err)
	}
	defer r.Close()
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, wire.ErrReleased) {
			return nil
		}
		if err == nil {
			if err = c.handle(h, &f); err == nil {
				continue
			}
			err = &wire.Fault{Err: err}
		}
		if err := c.judge(err); err != nil {
			return err
		}
	}
}

// judge counts a fault and says whether it is the end.
func (c *Conn) judge(err error) error {
	var fault *wire.Fault
	if !errors.As(err, &fault) {
		return fmt.Errorf("read a product's socket: %w", err)
	}
	n := c.fault(fault.Err)
	switch {
	case fault.Fatal:
		return fmt.Errorf("%w: %w, on a stream, which cannot be read on", ErrFaults, fault.Err)
	case n >= c.o.FaultLimit:
		return fmt.Errorf("%w: %d faults, the last: %w", ErrFaults, n, fault.Err)
	}
	return nil
}

// fault counts err and returns the count.
func (c *Conn) fault(err error) int {
	c.faultMu.Lock()
	c.faults++
	c.lastFault = err
	n := c.faults
	c.faultMu.Unlock()
	if c.o.OnFault != nil {
		c.o.OnFault(err)
	}
	return n
}

// handle dispatches one frame; an error is a fault. The frequent kinds come first and do not allocate.
func (c *Conn) handle(h Handler, f *wire.Frame) error {
	switch f.Kind {
	case productv1.FrameAnswer:
		return h.Answer(f.ID, f.Flags&productv1.FlagDeny != 0, f.Flags&productv1.FlagCacheFile != 0)
	case productv1.FrameAck:
		h.Ack(f.Seq)
		return nil
	case productv1.FrameExtend:
		return h.Extend(f.ID, f.Deadline)
	case productv1.FrameFinding:
		if len(f.Payload) > productv1.MaxFinding {
			return fmt.Errorf("finding of %d bytes, at most %d are taken", len(f.Payload), productv1.MaxFinding)
		}
		m := new(productv1.Finding)
		if err := m.UnmarshalVT(f.Payload); err != nil {
			return fmt.Errorf("decode finding: %w", err)
		}
		return h.Finding(m)
	case productv1.FrameSubscribe:
		m := new(productv1.Subscribe)
		if err := m.UnmarshalVT(f.Payload); err != nil {
			return fmt.Errorf("decode subscribe: %w", err)
		}
		return h.Subscribe(m)
	case productv1.FrameRuleInstall, productv1.FrameRuleRemove:
		return rule(h, f)
	case productv1.FrameUnsupported:
		return c.unsupported(f.Payload)
	}
	return c.unknown(f.Kind)
}

func rule(h Handler, f *wire.Frame) error {
	if len(f.Payload) > productv1.MaxRule {
		return fmt.Errorf("rule of %d bytes, at most %d are taken", len(f.Payload), productv1.MaxRule)
	}
	if f.Kind == productv1.FrameRuleRemove {
		m := new(productv1.RuleRemove)
		if err := m.UnmarshalVT(f.Payload); err != nil {
			return fmt.Errorf("decode the removal of a rule: %w", err)
		}
		return h.RemoveRule(f.ID, m)
	}
	m := new(productv1.RuleInstall)
	if err := m.UnmarshalVT(f.Payload); err != nil {
		return fmt.Errorf("decode rule: %w", err)
	}
	return h.InstallRule(f.ID, m)
}

// unsupported is for a product that is older than this agent and lives without what was sent.
func (c *Conn) unsupported(payload []byte) error {
	if c.o.OnUnsupported == nil {
		return nil
	}
	m := new(productv1.Unsupported)
	if err := m.UnmarshalVT(payload); err != nil {
		return fmt.Errorf("decode unsupported: %w", err)
	}
	c.o.OnUnsupported(productv1.FrameKind(min(m.GetFrameKind(), 1<<16-1)))
	return nil
}

// unknown replies to a kind that a later protocol may have. Kinds below 64 come from agents only: a product that sends one
// is confused, not newer.
func (c *Conn) unknown(k productv1.FrameKind) error {
	if k < 64 {
		return fmt.Errorf("frame of kind %d, which only the agent sends", k)
	}
	err := c.sendMessage(&productv1.Header{Kind: productv1.FrameUnsupported}, &productv1.Unsupported{FrameKind: uint32(k)})
	if errors.Is(err, ErrTooLarge) {
		return err
	}
	return nil // a product that does not read, or has gone, does not get the courtesy
}
