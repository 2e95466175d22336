package keeper

import (
	"time"
)

// Manager is the service manager that started the keeper: what it is told, in the words of sd_notify(3).
type Manager interface {
	Say(lines ...string) error
	// Watchdog is within which time it wants to hear that the keeper lives; 0: never.
	Watchdog() time.Duration
}

// bootPatience is how long the service manager, and with it the boot, waits for the first agent. Then it is told that the service
// is up: the keeper is, and a machine that boots is worth more than an agent that is slow.
const bootPatience = 10 * time.Second

// service tells the service manager how the keeper fares. Only Run's goroutine uses it.
type service struct {
	manager Manager
	ready   bool // said
	boot    <-chan time.Time
	feed    <-chan time.Time
	end     func()
	said    string
	rounds  uint64 // of the answerer, when the watchdog was fed last
	waiting uint64 // what the keeper had answered when questions were found waiting, plus one; 0: none were
}

// newService begins to speak to m, which may be nil.
func newService(m Manager, patience time.Duration) *service {
	s := &service{manager: m, end: func() {}}
	if m == nil {
		return s
	}
	boot := time.NewTimer(patience)
	s.boot, s.end = boot.C, func() { boot.Stop() }
	if d := m.Watchdog(); d > 0 {
		t := time.NewTicker(d / 3)
		s.feed, s.end = t.C, func() { boot.Stop(); t.Stop() }
	}
	return s
}

// say sends lines; a service manager that does not listen misses them.
func (s *service) say(lines ...string) {
	if s.manager != nil {
		_ = s.manager.Say(lines...)
	}
}

// status says what the keeper does, if that is news.
func (s *service) status(text string) {
	if text != s.said {
		s.said = text
		s.say("STATUS=" + text)
	}
}

// started says once that the service is up.
func (s *service) started() {
	if !s.ready {
		s.ready = true
		s.say("READY=1")
	}
}

// watchdog tells the service manager that questions are answered, if they are: the answerer's thread moves on, and while it is
// the one that answers, none waits that it does not get to.
func (k *Keeper) watchdog() {
	rounds := k.answerer.rounds.Load()
	moved := rounds != k.service.rounds
	k.service.rounds = rounds
	k.answerer.wake()
	stuck := k.stuck()
	if moved && !stuck {
		k.service.say("WATCHDOG=1")
		return
	}
	k.cfg.Log.Error("the keeper does not answer: the service manager is not told that it lives", "moved", moved, "waiting", stuck)
}

// stuck reports that a question waited at the last look, waits now, and that the keeper, whose turn it is, answered none between.
func (k *Keeper) stuck() bool {
	a := k.answerer
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.bypass.Load() || !a.readable(a.group.Load()) {
		k.service.waiting = 0
		return false
	}
	was, now := k.service.waiting, k.board.Bypassed.Load()+1
	k.service.waiting = now
	return was == now
}
