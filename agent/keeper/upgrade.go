package keeper

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	readyPatience = 30 * time.Second // for a new agent to be ready
	leavePatience = 15 * time.Second // for the old one to hand over
)

// beginUpgrade starts the next agent beside the one that answers. fd is its program, and taken over.
func (k *Keeper) beginUpgrade(fd int) {
	if fd < 0 {
		return
	}
	p, err := adoptProgram(os.NewFile(uintptr(fd), "agent"))
	if err == nil && k.next != nil {
		err = errUpgrading
	}
	if err == nil && k.ending {
		err = errEnding
	}
	if err == nil {
		k.next, err = k.start(p, true)
	}
	if err != nil {
		p.close()
		k.refuse(err.Error())
		return
	}
	k.cfg.Log.Info("an upgrade begins", "path", p.path, "pid", k.next.pid)
	k.listen(k.next)
	k.upgrade = time.After(readyPatience)
}

// handOver asks the agent that answers to leave everything to the one that is ready.
func (k *Keeper) handOver() {
	if k.agent == nil { // it died meanwhile
		if k.answerer.swept.Load() {
			k.takeTurn()
		}
		return
	}
	k.upgrade = time.After(leavePatience)
	if err := send(int(k.agent.sock.Fd()), message{op: opHandOver, fd: -1}); err != nil {
		k.abortUpgrade(err.Error())
	}
}

// takeTurn makes the next agent the one that answers.
func (k *Keeper) takeTurn() {
	c := k.next
	k.agent, k.next, k.upgrade = c, nil, nil
	k.previous.close()
	k.previous, k.program = k.program, c.program
	k.restart = nil
	k.answerer.watch(c.pidfd)
	k.state.Agent = c.pid
	err := k.pass(c) // what the old one kept since
	if err == nil {
		err = send(int(c.sock.Fd()), message{op: opGo, fd: -1})
	}
	if err != nil {
		_ = c.kill()
		return
	}
	k.cfg.Log.Info("the new agent takes over", "path", c.program.path, "pid", c.pid)
	k.say(Serving, "")
}

// abortUpgrade ends the next agent, if there is one, and says why to the present one.
func (k *Keeper) abortUpgrade(why string) {
	k.upgrade = nil
	if c := k.next; c != nil {
		if k.agent != nil && k.agent.ending || c.ready && k.agent == nil {
			_ = k.agent.kill() // it was asked to leave and hangs: its successor waits
			return
		}
		_ = c.kill()
		return // its end comes back here with k.next cleared
	}
	k.refuse(why)
}

func (k *Keeper) refuse(why string) {
	k.cfg.Log.Error("the upgrade failed: the agent goes on", "err", why)
	if k.agent != nil {
		_ = send(int(k.agent.sock.Fd()), message{op: opFailed, name: why[:min(len(why), MaxName)], fd: -1})
	}
}

// forget closes what Run used.
func (k *Keeper) forget() {
	k.program.close()
	k.previous.close()
	_ = unix.Close(k.answerer.wakeFD)
	_ = os.Remove(StatePath(k.cfg.Run))
	_ = k.board.Close()
}
