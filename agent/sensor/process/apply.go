package process

import (
	"path"

	"bailey/agent/event"
	"bailey/internal/boottime"
)

// Filesystems whose stat(2) shows another device number than the superblock's (linux/magic.h).
const (
	magicBtrfs   = 0x9123683E
	magicOverlay = 0x794c7630
)

// apply changes the tree as a record says and returns the event to emit, nil for none.
func (s *Sensor) apply(r *record) *event.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.kind {
	case recordExec:
		return s.applyExec(r)
	case recordFork:
		return s.applyFork(r)
	case recordExit:
		return s.applyExit(r)
	}
	return nil
}

func (s *Sensor) applyExec(r *record) *event.Event {
	p := s.process(&r.who, r)
	p.Executable = s.executable(r)
	s.markNeverAsk(p) // before anybody can look it up
	n := s.tree.find(p.Key)
	var previous string
	if n == nil {
		s.emitted.unknownProcesses.Add(1)
		n = s.tree.put(p, r.who.cell, r.time)
		s.tree.adopt(n, s.tree.find(p.Parent))
	} else {
		before := n.proc.Load()
		previous, p.Parent = before.Executable.Path, before.Parent
		if r.time >= n.settled && !n.ended.Load() {
			n.proc.Store(p)
			n.cell.Store(uint32(r.who.cell))
		}
	}
	s.emitted.execs.Add(1)
	one := &struct { // one allocation for both
		event  event.Event
		detail event.ExecDetail
	}{detail: execDetail(r, p, previous)}
	one.event = event.Event{Kind: event.Exec, Time: r.time, Process: p, Exec: &one.detail}
	return &one.event
}

func execDetail(r *record, p *event.Process, previous string) event.ExecDetail {
	d := event.ExecDetail{
		Argc: r.argc, EnvSize: r.envSize, CWD: joinNames(r.cwd), Script: cString(r.script),
		Previous: p.Key, PreviousExe: previous,
	}
	d.Argv, d.ArgvTruncated = splitArgv(r.argv, r.argvSize)
	if d.Script != "" && !path.IsAbs(d.Script) {
		d.Script = path.Join(d.CWD, d.Script)
	}
	return d
}

func (s *Sensor) applyFork(r *record) *event.Event {
	child := s.process(&r.child, r)
	child.Parent = r.who.key // who made it, also with CLONE_PARENT
	if r.who.key.PID == 0 {
		child.Parent = event.ProcessKey{}
		child.Executable = currentExecutable(child.Key)
		s.tree.put(child, r.child.cell, r.time)
		s.emitted.outside.Add(1)
		return nil
	}
	parent := s.tree.find(r.who.key)
	if parent == nil {
		parent = s.unknown(&r.who, r)
	}
	before := parent.proc.Load()
	if (before.Credentials != r.who.creds || before.MountNamespace != r.who.mountNS) && r.time >= parent.settled {
		changed := *before
		changed.Credentials, changed.MountNamespace = r.who.creds, r.who.mountNS
		parent.proc.Store(&changed)
	}
	child.Executable = before.Executable
	n := s.tree.find(child.Key)
	if n == nil || r.time >= n.settled {
		n = s.tree.put(child, r.child.cell, r.time)
	}
	s.tree.adopt(n, parent)
	s.emitted.forks.Add(1)
	one := &struct {
		event  event.Event
		detail event.ForkDetail
	}{detail: event.ForkDetail{Child: child}}
	one.event = event.Event{Kind: event.Fork, Time: r.time, Process: parent.proc.Load(), Fork: &one.detail}
	return &one.event
}

func (s *Sensor) applyExit(r *record) *event.Event {
	n := s.tree.find(r.who.key)
	if n == nil {
		n = s.unknown(&r.who, r)
	}
	s.tree.end(n, r.time)
	if n.said {
		s.emitted.duplicates.Add(1)
		return nil
	}
	n.said = true
	s.emitted.exits.Add(1)
	one := &struct {
		event  event.Event
		detail event.ExitDetail
	}{detail: event.ExitDetail{Code: int32(r.status >> 8 & 0xff), Signal: int32(r.status & 0x7f)}}
	one.event = event.Event{Kind: event.Exit, Time: r.time, Process: n.proc.Load(), Exit: &one.detail}
	return &one.event
}

// process makes a Process of a record; its program is the caller's to add.
func (s *Sensor) process(w *who, r *record) *event.Process {
	cgroup := s.cgroups.of(r.cgroup, r.cgroup1)
	p := &event.Process{
		Key: w.key, Parent: w.parent, Comm: cString(w.comm[:]), Credentials: w.creds, Kernel: w.kernel,
		CgroupID: w.cgroup, Cgroup: cgroup.path, ContainerID: cgroup.container,
		MountNamespace: w.mountNS,
	}
	if len(r.cgroup) == 0 && cgroup.path != "/" {
		p.CgroupID = 0 // the path is that of a version 1 hierarchy
	}
	return p
}

// sameTick reports whether two keys are one process's, if /proc rounded one of them.
func sameTick(a, b event.ProcessKey) bool {
	return a.PID == b.PID && boottime.ToTicks(a.Start) == boottime.ToTicks(b.Start)
}

// unknown adds a process whose start was not seen: lost, or ended between the attaching and the first reading.
func (s *Sensor) unknown(w *who, r *record) *node {
	s.emitted.unknownProcesses.Add(1)
	p := s.process(w, r)
	if n := s.tree.newest(p.Key.PID); n != nil && sameTick(n.proc.Load().Key, p.Key) {
		known := *n.proc.Load() // from /proc, with a rounded start
		known.Key, known.Credentials, known.MountNamespace = p.Key, p.Credentials, p.MountNamespace
		p = &known
	} else {
		p.Executable = currentExecutable(p.Key)
	}
	n := s.tree.put(p, w.cell, r.time)
	s.tree.adopt(n, s.tree.find(p.Parent))
	return n
}

// executable completes the program's identity with what only stat and readlink can tell, if the process is still the same.
func (s *Sensor) executable(r *record) event.File {
	file := r.image.file
	if len(r.exe) == 0 {
		return event.File{}
	}
	file.Path = joinNames(r.exe)
	cut := r.incomplete&exeIncomplete != 0
	if !cut && r.image.magic != magicBtrfs && r.image.magic != magicOverlay {
		return file
	}
	if cut {
		file.Path = ""
	}
	now := currentExecutable(r.who.key)
	if now.CTime != file.CTime || now.MTime != file.MTime || now.Size != file.Size {
		return file
	}
	if cut {
		file.Path = now.Path
	}
	file.Dev, file.Ino = now.Dev, now.Ino
	return file
}

// currentExecutable returns the program that a process runs now; the zero File if the process has ended.
func currentExecutable(key event.ProcessKey) event.File {
	d, err := openProc(key.PID)
	if err != nil {
		return event.File{}
	}
	defer d.close()
	data, err := d.read("stat")
	if err != nil {
		return event.File{}
	}
	stat, err := parseStat(data)
	if err != nil || !sameTick(event.ProcessKey{PID: key.PID, Start: stat.start}, key) {
		return event.File{}
	}
	file, err := d.executable()
	if err != nil {
		return event.File{}
	}
	return file
}

// markNeverAsk sets the flag of a process that runs a never-ask program. The record may be old: the flag is set only if the
// process still runs that program, and has not executed another between that look and the setting.
func (s *Sensor) markNeverAsk(p *event.Process) {
	if p.Kernel || !s.cfg.NeverAsk(p) {
		return
	}
	seen := s.cells.get(p.Key.PID)
	now := currentExecutable(p.Key)
	if now.Ino == p.Executable.Ino && now.CTime == p.Executable.CTime && now.Dev == p.Executable.Dev {
		s.cells.set(p.Key.PID, seen, cellNeverAsk)
	}
}
