package link

import (
	"fmt"

	"bailey/agent/event"
	productv1 "bailey/api/product/v1"
)

// ParseEvent reads what AppendEvent wrote.
func (c *Codec) ParseEvent(payload []byte) (*event.Event, error) {
	var m productv1.Event
	if err := m.UnmarshalVT(payload); err != nil {
		return nil, fmt.Errorf("decode an event: %w", err)
	}
	return EventFromProto(&m), nil
}

// EventFromProto is the inverse of EventToProto; words that it does not know become zero. The result shares m's strings.
func EventFromProto(m *productv1.Event) *event.Event {
	e := &event.Event{
		Kind: event.Kind(m.GetKind()), Seq: m.GetSeq(), Time: m.GetTime(), Process: processFromProto(m.GetProcess()),
	}
	if d := m.GetExec(); d != nil {
		e.Exec = &event.ExecDetail{
			Argv: d.GetArgv(), ArgvTruncated: d.GetArgvTruncated(), Argc: d.GetArgc(), EnvSize: d.GetEnvSize(),
			CWD: d.GetCwd(), Script: d.GetScript(), PreviousExe: d.GetPreviousExe(),
		}
		if e.Process != nil {
			e.Exec.Previous = e.Process.Key
		}
	}
	if d := m.GetFork(); d != nil {
		e.Fork = &event.ForkDetail{Child: processFromProto(d.GetChild())}
	}
	if d := m.GetExit(); d != nil {
		e.Exit = &event.ExitDetail{Code: d.GetCode(), Signal: d.GetSignal()}
	}
	if d := m.GetFile(); d != nil {
		e.File = &event.FileDetail{File: fileFromProto(d.GetFile()), From: d.GetFrom()}
	}
	if d := m.GetVerdict(); d != nil {
		e.Verdict = verdictFromProto(d)
	}
	if d := m.GetFinding(); d != nil {
		e.Finding = FindingFromProto(d.GetProduct(), d)
	}
	if d := m.GetProduct(); d != nil {
		e.Product = &event.ProductDetail{
			Product: d.GetProduct(), Release: d.GetRelease(), State: d.GetState(), Authority: d.GetAuthority(),
			Reason: d.GetReason(), Restarts: d.GetRestarts(),
		}
	}
	if d := m.GetHealth(); d != nil {
		e.Health = &event.HealthDetail{
			Component: d.GetComponent(), Status: d.GetStatus(), Summary: d.GetSummary(), Remedy: d.GetRemedy(),
		}
	}
	if d := m.GetTamper(); d != nil {
		e.Tamper = &event.TamperDetail{
			Hook: d.GetHook(), Refused: d.GetRefused(), Undone: d.GetUndone(), Target: keyFromProto(d.GetTarget()), Name: d.GetName(),
			Detail: d.GetDetail(), Suppressed: d.GetSuppressed(),
		}
	}
	return e
}

// FindingFromProto returns what the named product reported. A product does not choose the name it reports under.
func FindingFromProto(product string, m *productv1.Finding) *event.FindingDetail {
	return &event.FindingDetail{
		Product: product, Rule: m.GetRule(), Title: m.GetTitle(), Severity: severityFromProto(m.GetSeverity()),
		QuestionID: m.GetQuestionId(), Action: m.GetAction(), File: fileFromProto(m.GetFile()),
		Target: keyFromProto(m.GetTarget()), Fields: m.GetFields(),
	}
}

// severityFromProto maps numbers that this agent does not know to none.
func severityFromProto(s productv1.Severity) event.Severity {
	if s < productv1.Severity_info || s > productv1.Severity_critical {
		return 0
	}
	return event.Severity(s)
}

// KindsFromProto returns the set of the kinds that this agent knows and the numbers that it does not.
func KindsFromProto(kinds []productv1.Kind) (known event.KindSet, unknown []productv1.Kind) {
	all := event.KindsOf(event.Kinds()...)
	for _, k := range kinds {
		if k > 0 && k < 64 && all.Has(event.Kind(k)) {
			known |= event.KindsOf(event.Kind(k))
			continue
		}
		unknown = append(unknown, k)
	}
	return known, unknown
}

// KindsToProto returns the kinds of s in numeric order.
func KindsToProto(s event.KindSet) []productv1.Kind {
	out := make([]productv1.Kind, 0, s.Len())
	for _, k := range s.List() {
		out = append(out, productv1.Kind(k))
	}
	return out
}

func keyFromProto(m *productv1.ProcessKey) event.ProcessKey {
	return event.ProcessKey{PID: m.GetPid(), Start: m.GetStart()}
}

func fileFromProto(m *productv1.File) event.File {
	f := event.File{
		Path: m.GetPath(), Dev: m.GetDev(), Ino: m.GetIno(), CTime: m.GetCtime(), MTime: m.GetMtime(), Size: m.GetSize(),
		Mode: m.GetMode(), UID: m.GetUid(), GID: m.GetGid(), Deleted: m.GetDeleted(),
	}
	if e := m.GetPathEscaped(); e != "" {
		f.Path = unescape(e)
	}
	return f
}

func processFromProto(m *productv1.Process) *event.Process {
	if m == nil {
		return nil
	}
	c := m.GetCredentials()
	return &event.Process{
		Key: keyFromProto(m.GetKey()), Parent: keyFromProto(m.GetParent()), Comm: m.GetComm(),
		Executable: fileFromProto(m.GetExecutable()),
		Credentials: event.Credentials{
			UID: c.GetUid(), EUID: c.GetEuid(), SUID: c.GetSuid(), FSUID: c.GetFsuid(),
			GID: c.GetGid(), EGID: c.GetEgid(), SGID: c.GetSgid(), FSGID: c.GetFsgid(), CapEffective: c.GetCapEffective(),
		},
		CgroupID: m.GetCgroupId(), Cgroup: m.GetCgroup(), ContainerID: m.GetContainerId(), Kernel: m.GetKernel(),
		MountNamespace: m.GetMountNamespace(),
	}
}

func verdictFromProto(m *productv1.Verdict) *event.VerdictDetail {
	d := &event.VerdictDetail{
		QuestionID: m.GetQuestionId(), Asked: event.Kind(m.GetAsked()), File: fileFromProto(m.GetFile()),
		Decision: event.Decision{Allow: m.GetAllow(), CacheFile: m.GetCached()}, Latency: m.GetLatency(),
	}
	for _, r := range event.Reasons() {
		if r.String() == m.GetReason() {
			d.Decision.Reason = r
		}
	}
	for _, a := range m.GetAnswers() {
		d.Answers = append(d.Answers, event.Answer{
			Product: a.GetProduct(), Shadow: a.GetShadow(), Outcome: outcomeFromProto(a.GetOutcome()), Allow: a.GetAllow(),
			Latency: a.GetLatency(),
		})
	}
	return d
}

func outcomeFromProto(word string) event.AnswerOutcome {
	for o := event.Answered; o.String() != "unknown"; o++ {
		if o.String() == word {
			return o
		}
	}
	return 0
}
