package file

import "bailey/agent/event"

// load hands a question whose process is unknown to a worker: reading /proc is not the reader's business. With the workers'
// queue full the opener is allowed: missing context never denies and never waits.
func (s *Sensor) load(p *pending) {
	select {
	case s.unknown <- p:
	default:
		s.count.overloaded.Add(1)
		p.finish(event.ByOverload)
	}
}

// worker completes questions until the queue is closed. One whose agent leaves is asked about as any other: only what is still waiting when that is
// over is let go.
func (s *Sensor) worker() {
	for p := range s.unknown {
		if s.abandons.Load() {
			p.finish(event.ByShutdown)
			continue
		}
		proc, err := s.cfg.Processes.Load(p.q.PID)
		if err != nil || proc == nil {
			s.count.unloaded.Add(1)
			p.finish(event.ByIncomplete)
			continue
		}
		s.count.loaded.Add(1)
		p.q.Process = proc
		s.askLoaded(p)
	}
}

// askLoaded asks who the process is once more: the reader met it before it was known what it runs.
func (s *Sensor) askLoaded(p *pending) {
	if s.cfg.Exempt != nil && s.cfg.Exempt(p.q.PID) {
		s.count.exempt.Add(1)
		p.finish(event.ByIdentity)
		return
	}
	p.q.NeverAsk = p.q.NeverAsk || s.cfg.Identity.NeverAsk(p.q.PID)
	s.ask(p)
}
