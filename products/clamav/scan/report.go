package scan

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"bailey/products/clamav/clamd"
	"bailey/sdk"
)

// The rules of findings that are not signatures.
const (
	ruleUnscanned  = "unscanned"
	ruleLarge      = "too_large"
	ruleAway       = "clamd_away"
	ruleBack       = "clamd_back"
	ruleSignatures = "signatures"
)

// Findings about files that were not scanned are limited, all together; detections never are.
const (
	limitWindow = 10 * time.Second
	limitBurst  = 5
)

// limiter lets limitBurst things through in a window and counts the rest. Safe for concurrent use.
type limiter struct {
	mu    sync.Mutex
	since time.Time
	sent  int
	left  int
}

func (l *limiter) admit(now time.Time) (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= limitWindow {
		leftOut = l.left
		l.since, l.sent, l.left = now, 0, 0
	}
	if l.sent == limitBurst {
		l.left++
		return 0, false
	}
	l.sent++
	return leftOut, true
}

// detected reports a signature and denies, if this product is to.
func (p *Product) detected(q *sdk.Question, signature string) sdk.Answer {
	action, verb := sdk.WouldDeny, "would deny"
	if p.settings.Deny && counts(q) {
		action, verb = sdk.Denied, "denied"
	}
	x := describe(q)
	x["signature"] = signature
	p.send(q, sdk.Finding{
		Rule: signature, Severity: sdk.Critical, Action: action, Fields: x,
		Title: fmt.Sprintf("%s %s of %s: %s", verb, q.GetKind(), q.GetFile().GetPath(), signature),
	})
	if p.settings.Deny {
		return sdk.Deny
	}
	return sdk.Allow
}

// notScanned answers by on_error.
func (p *Product) notScanned(q *sdk.Question, err error) sdk.Answer {
	if errors.Is(err, sdk.ErrWithdrawn) || errors.Is(err, context.Canceled) {
		return sdk.Allow // nobody waits for it
	}
	if errors.Is(err, errAway) || errors.Is(err, clamd.ErrUnavailable) {
		p.unscanned.Add(1)
	}
	return p.byPolicy(q, ruleUnscanned, err.Error(), p.settings.OnError)
}

// tooLarge answers by on_large.
func (p *Product) tooLarge(q *sdk.Question, why string) sdk.Answer {
	return p.byPolicy(q, ruleLarge, why, p.settings.OnLarge)
}

func (p *Product) byPolicy(q *sdk.Question, rule, why string, deny bool) sdk.Answer {
	deny = deny && p.settings.Deny
	if leftOut, ok := p.reports.admit(time.Now()); ok {
		action, verb := sdk.Detected, "allowed"
		if deny {
			action, verb = sdk.WouldDeny, "would deny"
			if counts(q) {
				action, verb = sdk.Denied, "denied"
			}
		}
		x := describe(q)
		x["why"] = why
		if leftOut > 0 {
			x["left_out"] = strconv.Itoa(leftOut)
		}
		p.send(q, sdk.Finding{
			Rule: rule, Severity: sdk.Low, Action: action, Fields: x,
			Title: fmt.Sprintf("%s %s of %s without a scan: %s", verb, q.GetKind(), q.GetFile().GetPath(), why),
		})
	}
	if deny {
		return sdk.Deny
	}
	return sdk.Allow
}

func (p *Product) send(q *sdk.Question, f sdk.Finding) {
	_ = q.Report(f) // fails when the agent is gone; the SDK meets that too and ends
}

// counts reports whether a deny of q is one.
func counts(q *sdk.Question) bool {
	g := q.Session().Granted()
	return !q.Shadow() && g.GetDeny() && (!q.Critical() || g.GetDenyCritical())
}

// describe says what and who; the SDK adds the file and the process key.
func describe(q *sdk.Question) map[string]string {
	p := q.GetProcess()
	x := map[string]string{
		"asked":      q.GetKind().String(),
		"path":       q.GetFile().GetPath(),
		"executable": p.GetExecutable().GetPath(),
		"comm":       p.GetComm(),
		"pid":        strconv.FormatUint(uint64(p.GetKey().GetPid()), 10),
	}
	if c := p.GetCredentials(); c != nil {
		x["uid"] = strconv.FormatUint(uint64(c.GetUid()), 10)
	}
	return x
}
