package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bailey/agent/config"
	"bailey/agent/control"
	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/hub"
	"bailey/agent/journal"
	"bailey/agent/product"
	"bailey/agent/product/grant"
)

// ledger tells the journal what only the composition root sees together: when the agent started and stopped and how it was
// configured, who used the control API for what, what products may in consequence, and what states they and the agent's
// parts are in. Denies go to the journal directly. Safe for concurrent use.
type ledger struct {
	agent   *Agent
	tap     *hub.Tap
	actions atomic.Uint64

	mu       sync.Mutex
	products map[string]held // as they were written down last

	ill      sync.Mutex
	troubled map[string]bool // components whose trouble was written down
}

// held is a product's release and grants.
type held struct {
	release string
	grants  []string
}

func newLedger(a *Agent) *ledger {
	return &ledger{agent: a, products: map[string]held{}, troubled: map[string]bool{}}
}

func (a *Agent) newJournal() (err error) {
	a.journal, err = journal.New(journal.Config{
		Dir: journalDir(a.cfg), BootID: a.bootID, Health: a.health, Log: a.log,
	})
	if err == nil {
		a.health.Watch(a.ledger.health)
	}
	return err
}

func journalDir(cfg *config.Config) string { return filepath.Join(cfg.Agent.State, journal.DirName) }

// productBacklog is how many states of products may wait to be written down.
const productBacklog = 1024

// follow taps the states of products, from before there are any.
func (l *ledger) follow() error {
	l.tap = l.agent.hub.Tap(event.KindsOf(event.Product), productBacklog)
	return nil
}

// close ends follow.
func (l *ledger) close() {
	if l.tap != nil {
		l.tap.Close()
	}
}

// run starts the journal. The function that it returns ends it: it writes why the agent ends and what is left to be written.
func (l *ledger) run() (end func(error)) {
	ctx, cancel := context.WithCancel(context.Background())
	running := make(chan struct{})
	go func() {
		defer close(running)
		_ = l.agent.journal.Run(ctx) // it never fails: a disk that refuses is a health entry
	}()
	l.started()
	var following sync.WaitGroup
	following.Go(l.observe)
	return func(err error) {
		l.close()
		following.Wait()
		l.stopped(err)
		cancel()
		select {
		case <-running:
		case <-time.After(lastLines):
			l.agent.log.Warn("the journal's disk does not answer: the agent ends without its last lines")
		}
	}
}

// lastLines is how long the agent's end waits for the journal's disk: the machine may be shutting down.
const lastLines = 5 * time.Second

// observe writes down products' states until the tap is closed.
func (l *ledger) observe() {
	for {
		e, lost, err := l.tap.Next(context.Background())
		if err != nil {
			return
		}
		if lost > 0 {
			l.agent.journal.Note(journal.KindLost, map[string]any{"counts": []map[string]any{{"kind": "product", "cause": "tap", "count": lost}}})
		}
		l.reconcile("") // first: a product may be started with other grants than before
		l.agent.journal.Observe(e)
	}
}

// started writes what this agent is and what is in force.
func (l *ledger) started() {
	a := l.agent
	fields := map[string]any{
		"state": "started", "version": a.build.Version, "revision": a.build.Revision, "pid": os.Getpid(), "kernel": kernelRelease(),
		"state_dir": a.cfg.Agent.State, "run_dir": a.cfg.Agent.Run,
	}
	if text, err := config.Print(a.cfg); err == nil {
		fields["config"] = string(text)
	}
	a.journal.Note(journal.KindAgent, fields)
	a.noteGuardOff()
	a.noteBoot()
	l.reconcile("in force when the agent started")
}

func (l *ledger) stopped(err error) {
	fields := map[string]any{"state": "stopped", "pid": os.Getpid()}
	if err != nil {
		fields["err"] = err.Error()
	}
	l.agent.journal.Note(journal.KindAgent, fields)
}

// health writes down the trouble of a part of the agent, and its end. That something works is worth a line only after it
// did not.
func (l *ledger) health(e health.Entry) {
	l.ill.Lock()
	was := l.troubled[e.Component]
	l.troubled[e.Component] = e.Status != health.OK
	l.ill.Unlock()
	if e.Status == health.OK && !was {
		return
	}
	l.agent.journal.Observe(healthEvent(e))
}

// audit writes down who is about to do what, and returns what writes down how it ended. Both are on the disk when they
// return, unless the disk refuses or is too slow: an operator must be able to act then too, and the health registry has it.
func (l *ledger) audit(act control.Action) func(error) {
	id := l.actions.Add(1)
	fields := map[string]any{"action": id, "method": act.Method, "phase": "asked", "by": callerOf(act)}
	if len(act.Request) > 0 {
		fields["request"] = json.RawMessage(act.Request)
		if act.Cut {
			fields["request"] = string(act.Request)
		}
	}
	l.commit(fields)
	return func(err error) {
		l.reconcile("")
		fields := map[string]any{"action": id, "method": act.Method, "phase": "done"}
		if err != nil {
			fields["phase"], fields["err"] = "refused", err.Error()
		}
		l.commit(fields)
	}
}

func (l *ledger) commit(fields map[string]any) {
	if err := l.agent.journal.Commit(journal.KindOperator, fields); err != nil {
		l.agent.log.Warn("an operator's action goes on before it is recorded", "event", fields["method"], "err", err)
	}
}

// caller is who connected to the control socket.
type caller struct {
	PID        uint32  `json:"pid"`
	UID        uint32  `json:"uid"`
	GID        uint32  `json:"gid"`
	LoginUID   *uint32 `json:"login_uid,omitempty"` // who logged in before becoming root, where the kernel knows
	Executable string  `json:"executable,omitempty"`
}

// callerOf looks at the process while it waits for its reply; one that has ended, or whose pid is another's by now, is known
// by its credentials alone.
func callerOf(act control.Action) caller {
	c := caller{PID: act.PID, UID: act.UID, GID: act.GID}
	if act.PID == 0 {
		return c
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", act.PID)); err == nil {
		c.Executable = strings.ToValidUTF8(exe, "�")
	}
	const unset = 1<<32 - 1
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/loginuid", act.PID)); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32); err == nil && n != unset {
			uid := uint32(n)
			c.LoginUID = &uid
		}
	}
	return c
}

// reconcile writes down what changed of what products are and may, whoever changed it: an operator, or the agent when it went
// back to an earlier release.
func (l *ledger) reconcile(why string) {
	if l.agent.products == nil {
		return
	}
	l.agent.syncRules()
	l.mu.Lock()
	defer l.mu.Unlock()
	now := map[string]held{}
	for _, v := range l.agent.products.List() {
		now[v.Name] = held{v.Release, v.Grants.Items()}
		l.compare(v, why)
	}
	for name, old := range l.products {
		if _, still := now[name]; !still {
			l.agent.journal.Note(journal.KindRemove, map[string]any{"product": name, "release": old.release})
		}
	}
	l.products = now
}

// compare writes down what is new of one product. l.mu is held.
func (l *ledger) compare(v product.View, why string) {
	old, known := l.products[v.Name]
	items := v.Grants.Items()
	if why == "" && (!known || old.release != v.Release) {
		fields := map[string]any{"product": v.Name, "release": v.Release, "uid": v.UID}
		if known {
			fields["before"] = old.release
		}
		l.agent.journal.Note(journal.KindInstall, fields)
	}
	if known && slices.Equal(old.grants, items) {
		return
	}
	fields := map[string]any{"product": v.Name, "release": v.Release, "grants": items, "means": grant.Describe(items)}
	if added := without(items, old.grants); known && len(added) > 0 {
		fields["added"] = added
	}
	if gone := without(old.grants, items); len(gone) > 0 {
		fields["removed"] = gone
	}
	if why != "" {
		fields["why"] = why
	}
	l.agent.journal.Note(journal.KindGrant, fields)
}

// without returns what of list is not in other.
func without(list, other []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(other, s) {
			out = append(out, s)
		}
	}
	return out
}
