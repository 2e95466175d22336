package link

import (
	"strings"
	"unicode/utf8"

	"bailey/agent/event"
	productv1 "bailey/api/product/v1"
)

// tree is the memory of one message: every node that an Event or a Question may need, so that filling it allocates
// nothing. A node that is not linked from the root is garbage of an earlier use.
type tree struct {
	root     productv1.Event
	question productv1.Question

	process, child procNodes
	exec           productv1.Exec
	fork           productv1.Fork
	exit           productv1.Exit
	fileEvent      productv1.FileEvent
	file           productv1.File
	verdict        productv1.Verdict
	verdictFile    productv1.File
	answers        []productv1.ProductAnswer
	answerRefs     []*productv1.ProductAnswer
	finding        productv1.Finding
	findingFile    productv1.File
	target         productv1.ProcessKey
	product        productv1.ProductState
	health         productv1.HealthEntry
	tamper         productv1.Tamper
}

type procNodes struct {
	process     productv1.Process
	key, parent productv1.ProcessKey
	executable  productv1.File
	credentials productv1.Credentials
}

// text makes s sayable in a protobuf string, which must be UTF-8; names and arguments on Linux may be any bytes, and a
// strict decoder would refuse the whole message.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func (t *tree) event(e *event.Event) *productv1.Event {
	m := &t.root
	*m = productv1.Event{Kind: productv1.Kind(e.Kind), Seq: e.Seq, Time: e.Time, Process: t.process.fill(e.Process)}
	if e.Exec != nil {
		m.Exec = t.fillExec(e.Exec)
	}
	if e.Fork != nil {
		t.fork = productv1.Fork{Child: t.child.fill(e.Fork.Child)}
		m.Fork = &t.fork
	}
	if e.Exit != nil {
		t.exit = productv1.Exit{Code: e.Exit.Code, Signal: e.Exit.Signal}
		m.Exit = &t.exit
	}
	if e.File != nil {
		fillFile(&t.file, &e.File.File)
		t.fileEvent = productv1.FileEvent{File: &t.file, From: text(e.File.From)}
		m.File = &t.fileEvent
	}
	if e.Verdict != nil {
		m.Verdict = t.fillVerdict(e.Verdict)
	}
	if e.Finding != nil {
		m.Finding = t.fillFinding(e.Finding)
	}
	if d := e.Product; d != nil {
		t.product = productv1.ProductState{
			Product: text(d.Product), Release: text(d.Release), State: text(d.State), Authority: text(d.Authority),
			Reason: text(d.Reason), Restarts: d.Restarts,
		}
		m.Product = &t.product
	}
	if d := e.Health; d != nil {
		t.health = productv1.HealthEntry{
			Component: text(d.Component), Status: text(d.Status), Summary: text(d.Summary), Remedy: text(d.Remedy),
		}
		m.Health = &t.health
	}
	if d := e.Tamper; d != nil {
		t.target = productv1.ProcessKey{Pid: d.Target.PID, Start: d.Target.Start}
		t.tamper = productv1.Tamper{
			Hook: text(d.Hook), Refused: d.Refused, Undone: d.Undone, Target: &t.target, Name: text(d.Name), Detail: d.Detail, Suppressed: d.Suppressed,
		}
		m.Tamper = &t.tamper
	}
	return m
}

func (t *tree) ask(q *event.Question) *productv1.Question {
	fillFile(&t.file, &q.File)
	t.question = productv1.Question{
		Kind: productv1.Kind(q.Kind), Time: q.Time, Process: t.process.fill(q.Process), File: &t.file,
	}
	return &t.question
}

func (n *procNodes) fill(p *event.Process) *productv1.Process {
	if p == nil {
		return nil
	}
	n.key = productv1.ProcessKey{Pid: p.Key.PID, Start: p.Key.Start}
	n.parent = productv1.ProcessKey{Pid: p.Parent.PID, Start: p.Parent.Start}
	fillFile(&n.executable, &p.Executable)
	c := &p.Credentials
	n.credentials = productv1.Credentials{
		Uid: c.UID, Euid: c.EUID, Suid: c.SUID, Fsuid: c.FSUID, Gid: c.GID, Egid: c.EGID, Sgid: c.SGID, Fsgid: c.FSGID,
		CapEffective: c.CapEffective,
	}
	n.process = productv1.Process{
		Key: &n.key, Parent: &n.parent, Comm: text(p.Comm), Executable: &n.executable, Credentials: &n.credentials,
		CgroupId: p.CgroupID, Cgroup: text(p.Cgroup), ContainerId: text(p.ContainerID), Kernel: p.Kernel,
		MountNamespace: p.MountNamespace,
	}
	return &n.process
}

func fillFile(m *productv1.File, f *event.File) {
	*m = productv1.File{
		Path: text(f.Path), Dev: f.Dev, Ino: f.Ino, Ctime: f.CTime, Mtime: f.MTime, Size: f.Size, Mode: f.Mode,
		Uid: f.UID, Gid: f.GID, Deleted: f.Deleted,
	}
	if m.Path != f.Path {
		m.PathEscaped = escape(f.Path)
	}
}

func (t *tree) fillExec(d *event.ExecDetail) *productv1.Exec {
	argv := d.Argv
	for i, a := range argv {
		if !utf8.ValidString(a) {
			argv = append([]string(nil), argv...) // the event is immutable
			for ; i < len(argv); i++ {
				argv[i] = text(argv[i])
			}
			break
		}
	}
	t.exec = productv1.Exec{
		Argv: argv, ArgvTruncated: d.ArgvTruncated, Argc: d.Argc, EnvSize: d.EnvSize, Cwd: text(d.CWD),
		Script: text(d.Script), PreviousExe: text(d.PreviousExe),
	}
	return &t.exec
}

func (t *tree) fillVerdict(d *event.VerdictDetail) *productv1.Verdict {
	fillFile(&t.verdictFile, &d.File)
	if cap(t.answers) < len(d.Answers) {
		t.answers = make([]productv1.ProductAnswer, len(d.Answers))
	}
	t.answers, t.answerRefs = t.answers[:len(d.Answers)], t.answerRefs[:0]
	for i := range d.Answers {
		a := &d.Answers[i]
		t.answers[i] = productv1.ProductAnswer{
			Product: text(a.Product), Shadow: a.Shadow, Outcome: a.Outcome.String(), Allow: a.Allow, Latency: a.Latency,
		}
		t.answerRefs = append(t.answerRefs, &t.answers[i])
	}
	t.verdict = productv1.Verdict{
		QuestionId: d.QuestionID, Asked: productv1.Kind(d.Asked), File: &t.verdictFile, Allow: d.Decision.Allow,
		Reason: d.Decision.Reason.String(), Cached: d.Decision.CacheFile, Latency: d.Latency, Answers: t.answerRefs,
	}
	return &t.verdict
}

func (t *tree) fillFinding(d *event.FindingDetail) *productv1.Finding {
	t.finding = productv1.Finding{
		Product: text(d.Product), Rule: text(d.Rule), Title: text(d.Title), Severity: productv1.Severity(d.Severity),
		QuestionId: d.QuestionID, Action: text(d.Action), Fields: d.Fields,
	}
	for k, v := range d.Fields {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			t.finding.Fields = textFields(d.Fields)
			break
		}
	}
	if d.File != (event.File{}) {
		fillFile(&t.findingFile, &d.File)
		t.finding.File = &t.findingFile
	}
	if d.Target != (event.ProcessKey{}) {
		t.target = productv1.ProcessKey{Pid: d.Target.PID, Start: d.Target.Start}
		t.finding.Target = &t.target
	}
	return &t.finding
}

func textFields(fields map[string]string) map[string]string {
	out := make(map[string]string, len(fields))
	for k, v := range fields {
		out[text(k)] = text(v)
	}
	return out
}
