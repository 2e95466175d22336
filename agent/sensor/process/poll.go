package process

import (
	"context"
	"errors"
	"strings"
	"time"

	"bailey/agent/event"
	"bailey/internal/boottime"
)

// polled is what the last reading of /proc found.
type polled struct {
	proc   *event.Process
	node   *node
	layout layout
}

// runPolling reads /proc again and again until ctx ends.
func (s *Sensor) runPolling(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.PollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if !s.wanted.Load() {
				continue
			}
			if err := s.poll(true); err != nil {
				return err
			}
		}
	}
}

// poll compares /proc with the tree and emits the differences. Exit codes cannot be known this way: they are -1.
func (s *Sensor) poll(emit bool) error {
	pids, err := listPIDs()
	if err != nil {
		return err
	}
	var events []*event.Event
	s.mu.Lock()
	there := make(map[uint32]bool, len(pids))
	for _, pid := range pids {
		// Ended while being read: the next round sees that it is gone.
		if d, err := openProc(pid); err == nil {
			p, l, err := d.ofOneProgram()
			switch {
			case err == nil:
				there[pid] = true
				events = append(events, s.compare(d, p, l)...)
			case errors.Is(err, errUnsettled): // it is looked at again in the next round
				there[pid] = true
			}
			d.close()
		}
	}
	for pid, was := range s.seen {
		if !there[pid] {
			events = append(events, s.gone(pid, was))
		}
	}
	for _, n := range s.tree.living() { // what only Load had found
		if !there[n.proc.Load().Key.PID] {
			s.tree.end(n, boottime.Now())
		}
	}
	s.link()
	s.mu.Unlock()
	if !emit {
		return nil
	}
	for _, e := range events {
		s.emitted.add(e.Kind)
		s.cfg.Emit(e)
	}
	return nil
}

// compare puts what was read of a process into the tree and returns the events that explain the difference.
func (s *Sensor) compare(d *procDir, p *event.Process, l layout) []*event.Event {
	pid, now := p.Key.PID, boottime.Now()
	was, known := s.seen[pid]
	if known && was.proc.Key == p.Key {
		p.Parent = was.proc.Parent
		same := was.proc.Executable == p.Executable && was.layout == l
		if same && was.proc.Comm == p.Comm && was.proc.Credentials == p.Credentials && was.proc.Cgroup == p.Cgroup {
			return nil
		}
		s.keep(p, l, now)
		if same {
			return nil
		}
		return []*event.Event{s.polledExec(d, p, was.proc.Executable.Path, now)}
	}
	var events []*event.Event
	if known {
		events = append(events, s.gone(pid, was))
	}
	s.keep(p, l, now)
	parent := s.tree.find(p.Parent)
	if parent == nil {
		return events
	}
	maker := parent.proc.Load()
	events = append(events, &event.Event{Kind: event.Fork, Time: p.Key.Start, Process: maker, Fork: &event.ForkDetail{Child: p}})
	from, seen := s.seen[maker.Key.PID]
	if maker.Executable != p.Executable || seen && from.proc.Key == maker.Key && from.layout != l {
		events = append(events, s.polledExec(d, p, maker.Executable.Path, now))
	}
	return events
}

// keep puts p into the tree and its cell: a child of the platform belongs to it.
func (s *Sensor) keep(p *event.Process, l layout, now uint64) {
	n := s.tree.put(p, 0, now)
	s.tree.adopt(n, s.tree.find(p.Parent))
	s.seen[p.Key.PID] = polled{p, n, l}
	var cell uint16
	if s.Platform(p.Parent.PID) || s.Platform(p.Key.PID) {
		cell = cellPlatform
	}
	s.cells.put(p.Key.PID, cell)
	s.markNeverAsk(p)
}

func (s *Sensor) gone(pid uint32, was polled) *event.Event {
	now := boottime.Now()
	delete(s.seen, pid)
	s.tree.end(was.node, now)
	s.cells.put(pid, 0)
	return &event.Event{Kind: event.Exit, Time: now, Process: was.proc, Exit: &event.ExitDetail{Code: -1}}
}

func (s *Sensor) polledExec(d *procDir, p *event.Process, previous string, now uint64) *event.Event {
	detail := &event.ExecDetail{Previous: p.Key, PreviousExe: previous}
	if line, err := d.read("cmdline"); err == nil {
		const cut = 4096
		detail.Argv, detail.ArgvTruncated = splitArgv(line[:min(len(line), cut)], uint32(len(line)))
		detail.Argc = uint32(strings.Count(string(line), "\x00"))
	}
	if cwd, err := d.readlink("cwd"); err == nil {
		detail.CWD = strings.TrimSuffix(cwd, deletedSuffix)
	}
	return &event.Event{Kind: event.Exec, Time: now, Process: p, Exec: detail}
}

// adoptPolled puts a process that Load found between two readings into the tree; the next reading emits it.
func (s *Sensor) adoptPolled(p *event.Process) *event.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.tree.find(p.Key); n != nil {
		return n.proc.Load()
	}
	n := s.tree.put(p, 0, boottime.Now())
	s.tree.adopt(n, s.tree.find(p.Parent))
	return p
}
