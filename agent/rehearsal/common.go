package rehearsal

import (
	"slices"

	"bailey/agent/event"
	"bailey/agent/rehearsal/corpus"
	"bailey/internal/boottime"
)

// noPID is above every pid that the kernel gives: the processes of the corpus are nobody's.
const noPID = 1 << 22

// common makes steps of what is asked on every machine.
type common struct {
	r     *rehearsal
	asked map[asked]bool
	pid   uint32
}

// addCorpus adds what comes with Bailey: the files of this machine that the corpus names and nobody asked about yet, what administrators do, and
// the good files.
func (r *rehearsal) addCorpus(c *corpus.Corpus) {
	m := common{r: r, asked: map[asked]bool{}, pid: noPID}
	for _, s := range r.steps {
		if q := s.question; q != nil {
			m.asked[asked{q.kind, keyOf(&q.file)}] = true
		}
	}
	for _, f := range c.Files {
		m.file(f.Paths)
	}
	for i := range c.Work {
		m.work(&c.Work[i])
	}
	for i := range c.Good {
		m.good(&c.Good[i])
	}
}

// find returns the first of some files that is there.
func find(paths []string) (event.File, bool) {
	for _, p := range paths {
		fd, f, err := look(p)
		if err == nil {
			closeFD(fd)
			return f, true
		}
	}
	return event.File{Path: paths[0]}, false
}

// file adds the questions about a file that were not asked yet.
func (m *common) file(paths []string) {
	f, found := find(paths)
	if !found {
		m.r.report.Absent++
		return
	}
	for _, k := range m.r.kindsOf(&f) {
		if !m.asked[asked{k, keyOf(&f)}] {
			m.r.steps = append(m.r.steps, step{question: &question{kind: k, process: m.r.cfg.Asker, file: f, from: fromCorpus}})
		}
	}
}

// work adds what somebody does, as events, and as questions about files that are there.
func (m *common) work(w *corpus.Work) {
	doers := []*event.Process{m.r.cfg.Asker}
	for _, s := range w.Steps {
		k, err := s.Kind()
		if err != nil {
			continue // checked when it was read
		}
		doer := doers[len(doers)-1]
		if k == event.Exit {
			m.tell(&event.Event{Kind: k, Process: doer, Exit: &event.ExitDetail{}})
			doers = doers[:len(doers)-1]
			continue
		}
		f, found := find(s.Paths)
		if found && slices.Contains(m.r.kindsOf(&f), k) {
			m.r.steps = append(m.r.steps, step{question: &question{kind: k, process: doer, file: f, from: fromCorpus}})
		}
		if k != event.Exec {
			m.tell(&event.Event{Kind: k, Process: doer, File: &event.FileDetail{File: f, From: s.From}})
			continue
		}
		child := m.child(doer, w.UID)
		m.tell(&event.Event{Kind: event.Fork, Process: doer, Fork: &event.ForkDetail{Child: child}})
		program := *child
		program.Executable, program.Comm = f, comm(s.Argv)
		m.tell(&event.Event{Kind: k, Process: &program, Exec: &event.ExecDetail{Argv: s.Argv, Argc: uint32(len(s.Argv)), CWD: "/", Previous: program.Key, PreviousExe: doer.Executable.Path}})
		doers = append(doers, &program)
	}
}

func (m *common) tell(e *event.Event) {
	e.Time = boottime.Now()
	m.r.steps = append(m.r.steps, step{event: e})
}

// child is a process of its own that still is what its parent is.
func (m *common) child(parent *event.Process, uid uint32) *event.Process {
	m.pid++
	p := *parent
	p.Key, p.Parent = event.ProcessKey{PID: m.pid, Start: boottime.Now()}, parent.Key
	p.Credentials = event.Credentials{UID: uid, EUID: uid, SUID: uid, FSUID: uid, GID: uid, EGID: uid, SGID: uid, FSGID: uid}
	return &p
}

// comm is a process's short name.
func comm(argv []string) string {
	if len(argv) == 0 {
		return ""
	}
	return argv[0][:min(len(argv[0]), 15)]
}

// good adds the questions about a file that comes with Bailey, as if it lay where the release may be asked about.
func (m *common) good(g *corpus.Good) {
	data, err := g.Bytes()
	kinds, kerr := corpus.Questions(g.Ask...)
	if err != nil || kerr != nil {
		return // checked when it was read
	}
	for _, k := range kinds {
		f := event.File{Path: m.r.placed(k, g.Path), Mode: 0o100644, Size: int64(len(data))}
		if slices.Contains(kinds, event.Exec) {
			f.Mode = 0o100755
		}
		m.r.steps = append(m.r.steps, step{question: &question{kind: k, process: m.r.cfg.Asker, file: f, from: fromGood, data: append([]byte{}, data...)}})
	}
}

// placed is where a file is said to lie that is nowhere: at its path, or at the same below what the release may be asked about.
func (r *rehearsal) placed(k event.Kind, path string) string {
	if k != event.Open || r.inScope(path) || len(r.peer.scope) == 0 {
		return path
	}
	return r.peer.scope[0] + path
}

// own is the release's own test set.
type own struct {
	set  *corpus.Own
	test corpus.Test
}

// addOwn adds the tests that the release brings. What cannot be read of them is the release's fault.
func (r *rehearsal) addOwn(set *corpus.Own) {
	for _, t := range set.Tests {
		want := allow
		if t.Denied() {
			want = deny
		}
		f := event.File{Path: r.placed(t.Kind(), t.Path), Mode: 0o100755}
		r.steps = append(r.steps, step{question: &question{kind: t.Kind(), process: r.cfg.Asker, file: f, from: fromOwn, own: &own{set, t}, want: want}})
	}
}
