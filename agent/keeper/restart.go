package keeper

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// notifyChildren delivers one token on c for any number of children that changed.
func notifyChildren(c chan os.Signal) (stop func()) {
	signal.Notify(c, unix.SIGCHLD)
	return func() { signal.Stop(c) }
}

// ended handles the end of an agent.
func (k *Keeper) ended(c *child, status syscall.WaitStatus) {
	code := status.ExitStatus()
	how := fmt.Sprintf("exit status %d", code)
	if status.Signaled() {
		code = 128 + int(status.Signal())
		how = "signal " + status.Signal().String()
	}
	switch c {
	case k.next:
		k.next = nil
		c.close()
		c.program.close()
		k.abortUpgrade("the new agent ended before it was ready: " + how)
		return
	case k.left:
		k.left = nil
		c.close()
		return
	}
	k.agent = nil
	k.answerer.interrupt()
	// The answerer must have seen the end before its pidfd goes: it answers what the agent had read.
	k.answerer.gone()
	c.close()
	k.state.Agent = 0
	switch {
	case k.next != nil && !k.ending: // it goes on with that one, once what this one had read is answered
		k.cfg.Log.Error("the agent ended during its upgrade: the new one goes on", "pid", c.pid, "how", how)
		k.board.Released.Add(uint64(k.store.letGo()))
	case k.ending, c.ending, !k.wasReady && k.previous == nil:
		k.ending, k.code = true, code
	default:
		k.board.Released.Add(uint64(k.store.letGo()))
		k.cfg.Log.Error("the agent ended: the keeper answers and starts it again", "pid", c.pid, "how", how)
		k.over(code, how)
	}
}

// begins has agents started from the program at path, with the keeper's own to go back to.
func (k *Keeper) begins(path string) {
	if path == "" {
		return
	}
	p, err := openProgram(path)
	if err != nil {
		k.cfg.Log.Error("the agent is started from the keeper's own program", "err", err)
		return
	}
	k.program, k.previous = p, k.program
}

// over counts an end and plans the next start.
func (k *Keeper) over(code int, how string) {
	if !k.wasReady && k.previous == nil {
		k.ending, k.code = true, code
		return
	}
	k.board.Restarts.Add(1)
	now := time.Now()
	k.ends = append(recent(k.ends, now.Add(-k.cfg.Window)), now)
	switch {
	case k.previous != nil && (len(k.ends) >= 3 || !k.wasReady):
		k.cfg.Log.Error("the new agent does not keep running: back to the one before", "path", k.previous.path)
		k.program.close()
		k.program, k.previous = k.previous, nil
		k.ends = nil
	case len(k.ends) >= k.cfg.CrashLoop:
		k.cfg.Log.Error("the agent ends again and again: the keeper answers alone", "ends", len(k.ends), "within", k.cfg.Window,
			"hint", "look at its last messages, then send the keeper SIGHUP, or restart the service")
		k.store.giveUp()
		k.say(Bypass, fmt.Sprintf("the agent ended %d times within %v, last with %s", len(k.ends), k.cfg.Window, how))
		return
	}
	k.say(Starting, "the agent ended with "+how)
	if k.answerer.swept.Load() {
		k.schedule()
	}
}

// startPatience is how long an agent may take to be ready. Until it is, nobody is asked, and a start that hangs would be for ever.
const startPatience = 2 * time.Minute

// endSlow ends an agent that is not ready yet: it is started again like one that ended by itself.
func (k *Keeper) endSlow() {
	k.slow = nil
	if k.agent == nil || k.agent.ready || k.ending {
		return
	}
	k.cfg.Log.Error("the agent does not get ready: it is ended", "pid", k.agent.pid, "patience", k.cfg.StartPatience)
	_ = k.agent.kill()
}

func recent(times []time.Time, after time.Time) []time.Time {
	for len(times) > 0 && times[0].Before(after) {
		times = times[1:]
	}
	return times
}

// waitingForSweep reports that an agent is to be started as soon as nothing of the last one waits any more: the next one's
// questions have the same numbers.
func (k *Keeper) waitingForSweep() bool {
	return k.agent == nil && !k.ending && k.restart == nil && k.state.State == Starting && k.answerer.swept.Load()
}

// schedule plans the next start: at once the first time, then with pauses that double.
func (k *Keeper) schedule() {
	pause := time.Duration(0)
	if n := len(k.ends) - 1; n > 0 {
		pause = min(50*time.Millisecond<<min(n, 20), k.cfg.BackoffMax)
	}
	k.restart = time.After(pause)
}
