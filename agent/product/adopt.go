package product

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/health"
	"bailey/agent/product/cgroup"
	"bailey/agent/product/contain"
)

// prepareToOutlive makes what a product needs to outlive this agent, whose end of the socket is sock. One that speaks a
// stream cannot: the agent may be killed within a frame.
func (r *run) prepareToOutlive(sock int) (err error) {
	if r.trial || r.u.m.cfg.Keeper == nil || r.manifest.Run.Transport == "stream" {
		return nil
	}
	if r.memory, err = newMemory(r.record.Name); err != nil {
		return err
	}
	fd, err := unix.FcntlInt(uintptr(sock), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil { // the memory is the run's to close
		return fmt.Errorf("duplicate product socket: %w", err)
	}
	r.socket = os.NewFile(uintptr(fd), "product socket")
	return nil
}

// life is what the next agent must know.
func (r *run) life() (life, error) {
	record, err := digest(r.record.started())
	if err != nil {
		return life{}, err
	}
	mf, err := digest(r.manifest)
	if err != nil {
		return life{}, err
	}
	p := r.process.Parts()
	l := life{
		Product: r.record.Name, Place: r.place, Record: record, Manifest: mf, Init: p.Init, PID: p.PID, ReadOnly: r.readOnly, Notes: p.Notes,
		Began: sinceBoot(r.began), Since: r.since, Delay: r.crashes.delay,
	}
	for _, t := range r.crashes.ends {
		l.Ends = append(l.Ends, sinceBoot(t))
	}
	r.u.mu.Lock()
	l.Restarts = r.u.status.Restarts
	r.u.mu.Unlock()
	return l, nil
}

// secure gives the product to the keeper. One that cannot be kept runs on as one without a keeper does.
func (r *run) secure(keep func() error) {
	e := health.Entry{Component: "product." + r.u.name + ".kept", Status: health.OK, Summary: "it goes on when the agent is restarted"}
	if err := keep(); err != nil {
		r.u.m.cfg.Log.Warn("product ends with the agent: the keeper does not take it", "product", r.u.name, "err", err)
		e.Status, e.Summary = health.Degraded, "it ends with the agent: the keeper does not take it: "+err.Error()
		e.Remedy = fmt.Sprintf("see the keeper in `bailey status`, then `bailey product restart %s`", r.u.name)
	}
	r.u.tell(e)
}

// release makes the product end with this agent again.
func (r *run) release() {
	if !r.kept {
		return
	}
	if err := r.unkeep(); err != nil {
		r.u.m.cfg.Log.Error("the keeper does not let go of a product", "product", r.u.name, "err", err)
	}
	r.u.mu.Lock()
	defer r.u.mu.Unlock()
	if r.u.role == live {
		r.u.m.cfg.Health.Remove("product." + r.u.name + ".kept")
	}
}

// adopt takes over a product that an earlier agent left, and returns when it goes on with this one.
func (r *run) adopt(ctx context.Context, h *heir) error {
	defer h.end() // of what is not taken below
	l := h.life
	r.readOnly, r.began, r.since, r.memory, r.kept = l.ReadOnly, ago(l.Began), l.Since, h.memory, true
	h.memory = nil
	r.crashes.inherit(l)
	r.u.mu.Lock()
	r.u.status.Restarts = l.Restarts
	r.u.mu.Unlock()
	r.u.set(Starting, "it goes on after a restart of the agent")

	limits := r.record.Grants.Limits
	var err error
	if r.group, err = r.u.m.tree.Adopt(r.place, cgroup.Limits{Memory: int64(limits.Memory), Pids: limits.Pids, CPU: limits.CPU}); err != nil {
		return err
	}
	r.socket = h.take(partSocket)
	r.read(h.take(partStdout), "out")
	r.read(h.take(partStderr), "err")
	if r.process, err = contain.Adopt(h.process()); err != nil {
		return err
	}
	r.sockets = contain.AdoptSockets(r.spec(""))
	r.secure(r.keepParts) // again: whether the keeper still has what it handed out is its own business
	r.reportNotes()
	return r.resume(ctx)
}

// resume makes the product go on with this agent.
func (r *run) resume(ctx context.Context) error {
	sock, err := duplicate(r.socket)
	if err != nil {
		return fmt.Errorf("duplicate product socket: %w", err)
	}
	if r.session, err = r.u.m.cfg.Host.Resume(r.instance(), sock); err != nil {
		return fmt.Errorf("resume product: %w", err)
	}
	patience := time.NewTimer(r.u.m.cfg.ResumePatience)
	defer patience.Stop()
	select {
	case <-r.session.Resumable():
	case <-ctx.Done(): // the next agent tries
	case <-r.process.Done():
		return errors.New("it has ended: " + r.exitReason())
	case <-r.session.Done():
		if err := r.session.Err(); err != nil {
			return fmt.Errorf("resume product: %w", err)
		}
		return errors.New("resume product: it closed its socket")
	case <-patience.C:
		return fmt.Errorf("resume product: no reply within %v", r.u.m.cfg.ResumePatience)
	}
	return nil
}

func duplicate(f *os.File) (fd int, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := conn.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, cerr)
}

// leave ends this agent's part in a product that goes on with another one. It stays kept.
func (r *run) leave() {
	r.session.Leave()
	r.process.Leave()
	r.group.Leave()
	closeAll(r.outputs) // their readers wake
	r.closeFiles()
	r.u.m.left.Add(1)
}
