package decide

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"bailey/products/allowlist/policy"
	"bailey/sdk"
)

// The rules of findings that are not the policy's.
const (
	ruleUndecided = "undecided"
	ruleMismatch  = "package_mismatch"
	rulePolicy    = "policy"
	rulePackages  = "packages"
)

// A thing that goes on is reported reportBurst times in a reportWindow, then counted.
const (
	reportWindow = 10 * time.Second
	reportBurst  = 5
	reportKeys   = 4096
)

// reporter sends findings, and keeps one cause from flooding the operator. Safe for concurrent use.
type reporter struct {
	session atomic.Pointer[sdk.Session]

	mu     sync.Mutex
	recent map[reportKey]*reportCount
}

type reportKey struct {
	rule     string
	dev, ino uint64
	uid      uint32
}

type reportCount struct {
	since      time.Time
	sent       int
	suppressed int
}

// admit reports whether to send now, and how many equal findings were left out before.
func (r *reporter) admit(k reportKey, now time.Time) (repeats int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recent == nil || len(r.recent) >= reportKeys {
		r.recent = make(map[reportKey]*reportCount)
	}
	c := r.recent[k]
	if c == nil {
		c = &reportCount{since: now}
		r.recent[k] = c
	}
	if now.Sub(c.since) >= reportWindow {
		repeats = c.suppressed
		*c = reportCount{since: now}
	}
	if c.sent >= reportBurst {
		c.suppressed++
		return 0, false
	}
	c.sent++
	return repeats, true
}

// refused reports a file that no rule allows, or that one denies.
func (r *reporter) refused(q *sdk.Question, f *facts, v policy.Verdict, denied bool) {
	why := "no rule allows it"
	switch {
	case v.Rule != policy.DefaultRule:
		why = "rule " + v.Rule + " denies it"
	case v.Package.Reason != "":
		why = v.Package.Reason + ", and no rule allows it"
	}
	x := describe(q, f)
	if v.Package.Name != "" {
		x["package"] = v.Package.Name
	}
	x["why"] = why
	x["remedy"] = "if it is wanted, add its sha256 or path to the settings allow_sha256 or allow_paths, or a rule to the policy"
	r.send(q, v.Rule, why, sdk.Medium, denied, x)
}

// undecided reports that a question was answered without knowing enough.
func (r *reporter) undecided(q *sdk.Question, err error, denied bool) {
	x := describe(q, nil)
	x["why"] = err.Error()
	r.send(q, ruleUndecided, "not decided: "+err.Error(), sdk.Low, denied, x)
}

// mismatch reports a file that another rule allows although its package recorded another content.
func (r *reporter) mismatch(q *sdk.Question, f *facts) {
	x := describe(q, f)
	x["package"] = f.mismatch
	r.post(q, sdk.Finding{
		Rule: ruleMismatch, Severity: sdk.Medium, Action: sdk.Detected, Fields: x,
		Title: fmt.Sprintf("%s is not what package %s recorded", q.GetFile().GetPath(), f.mismatch),
	})
}

func (r *reporter) send(q *sdk.Question, rule, why string, severity sdk.Severity, denied bool, fields map[string]string) {
	action, verb := sdk.WouldDeny, "would deny"
	switch {
	case denied && counts(q):
		action, verb = sdk.Denied, "denied"
		severity = max(severity, sdk.High)
	case !denied && rule == ruleUndecided:
		action, verb = sdk.Detected, "allowed"
	}
	title := fmt.Sprintf("%s %s of %s: %s", verb, q.GetKind(), q.GetFile().GetPath(), why)
	r.post(q, sdk.Finding{Rule: rule, Severity: severity, Action: action, Title: title, Fields: fields})
}

// counts reports whether a deny of q is one.
func counts(q *sdk.Question) bool {
	g := q.Session().Granted()
	return !q.Shadow() && g.GetDeny() && (!q.Critical() || g.GetDenyCritical())
}

func (r *reporter) post(q *sdk.Question, f sdk.Finding) {
	key := reportKey{rule: f.Rule + f.Action, dev: q.GetFile().GetDev(), ino: q.GetFile().GetIno(), uid: q.GetProcess().GetCredentials().GetUid()}
	repeats, ok := r.admit(key, time.Now())
	if !ok {
		return
	}
	if repeats > 0 {
		f.Fields["repeats"] = strconv.Itoa(repeats)
	}
	_ = q.Report(f) // fails when the agent is gone; the SDK meets that too and ends
}

// general reports something that belongs to no question.
func (r *reporter) general(rule, title string, severity sdk.Severity) {
	if s := r.session.Load(); s != nil {
		_ = s.Report(sdk.Finding{Rule: rule, Title: title, Severity: severity, Action: sdk.Detected}) // as above
	}
}

// describe says what and who; the SDK adds the file and the process key.
func describe(q *sdk.Question, f *facts) map[string]string {
	p := q.GetProcess()
	x := map[string]string{
		"asked":      q.GetKind().String(),
		"path":       q.GetFile().GetPath(),
		"executable": p.GetExecutable().GetPath(),
		"comm":       p.GetComm(),
		"pid":        strconv.FormatUint(uint64(p.GetKey().GetPid()), 10),
		"parent":     strconv.FormatUint(uint64(p.GetParent().GetPid()), 10),
	}
	if c := p.GetCredentials(); c != nil {
		x["uid"] = strconv.FormatUint(uint64(c.GetUid()), 10)
	}
	if f == nil {
		return x
	}
	// The operator needs the digest to allow the file. Where no rule needed it, it is read now if it is read soon.
	if f.sums == nil && f.identify() == nil && f.id.Size <= 4<<20 {
		_ = f.read(0) // without it the finding says less
	}
	if f.sums != nil {
		x["sha256"] = hex.EncodeToString(f.sums.SHA256[:])
	}
	if f.expected != "" {
		x["expected"] = f.expected
	}
	return x
}
