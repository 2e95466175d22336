package agent

import (
	"context"
	"os"

	"bailey/agent/control"
	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/hub"
	controlv1 "bailey/api/control/v1"
	"bailey/internal/boottime"

	"golang.org/x/sys/unix"
)

// status answers the operator's questions about the agent as a whole.
type status Agent

var _ control.Agent = (*status)(nil)

// tapBuffer is how many events a slow reader of the control API may lag behind before it loses some.
const tapBuffer = 16 << 10

// Tap opens a tap for one reader.
func (s *status) Tap(kinds event.KindSet) (control.Tap, error) {
	return s.hub.Tap(kinds, tapBuffer), nil
}

var _ control.Tap = (*hub.Tap)(nil)

// Ancestors returns the known ancestors of a process, its parent first.
func (s *status) Ancestors(key event.ProcessKey) []*event.Process { return s.processes.Ancestors(key) }

// Health returns the health entries.
func (s *status) Health(context.Context) (*controlv1.HealthResponse, error) {
	return &controlv1.HealthResponse{Worst: s.health.Worst().String(), Entries: healthEntries(s.health.List())}, nil
}

func healthEntries(list []health.Entry) []*controlv1.HealthEntry {
	out := make([]*controlv1.HealthEntry, 0, len(list))
	for _, e := range list {
		out = append(out, &controlv1.HealthEntry{
			Component: e.Component, Status: e.Status.String(), Summary: e.Summary, Remedy: e.Remedy, Since: e.Since.UnixNano(),
		})
	}
	return out
}

// Status returns what the agent is and has counted.
func (s *status) Status(ctx context.Context) (*controlv1.StatusResponse, error) {
	products, err := (*operator)(s).List(ctx)
	if err != nil {
		return nil, err
	}
	return &controlv1.StatusResponse{
		Version: s.build.Version, BootId: s.bootID, Pid: uint32(os.Getpid()), Started: s.started, Uptime: boottime.Now() - s.started,
		StateDir: s.cfg.Agent.State, RunDir: s.cfg.Agent.Run, Kernel: kernelRelease(), Watch: s.cfg.Watch.Paths,
		Questions: s.questions(), Cache: (*cache)(s).show(), Products: products, Sensors: s.sensors(),
		Health: healthEntries(s.health.List()), Keeper: s.kept(), Journal: s.journalMessage(), Guard: guardMessage(s.door.State()),
		Boot: s.bootMessage(),
	}, nil
}

func (s *status) journalMessage() *controlv1.Journal {
	j := s.journal.Stats()
	m := &controlv1.Journal{
		Dir: journalDir(s.cfg), Seq: j.Head.Seq, Lines: j.Lines, Lost: j.Lost, SummedUp: j.SummedUp, Failing: j.Failing,
	}
	if j.Head.Seq > 0 {
		m.Head, m.Time = j.Head.Hash.String(), j.Head.Time.UnixNano()
	}
	return m
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// questions counts what the kernel asked. The file sensor answers some by itself and hands the others to the engine, which
// answers through the sensor: the sensor's account has them all, exactly once.
func (s *status) questions() *controlv1.Questions {
	f, e := s.files.Stats(), s.engine.Stats()
	q := &controlv1.Questions{
		Asked: f.Read, Allowed: f.Allowed, Denied: f.Denied, ByReason: map[string]uint64{},
		ByKind: map[string]uint64{event.Exec.String(): f.Execs, event.Open.String(): f.Read - min(f.Read, f.Execs)},
	}
	if f.Pending > 0 {
		q.InFlight = uint64(f.Pending)
	}
	for _, r := range event.Reasons() {
		if n := f.Answered[r]; n > 0 {
			q.ByReason[r.String()] = n
		}
	}
	for _, p := range e.Products {
		q.LateAnswers += p.Late
	}
	q.LatencyP50, q.LatencyP99 = quantiles(e.Products)
	return q
}

func (s *status) sensors() []*controlv1.Sensor {
	out := []*controlv1.Sensor{{Name: "file", Counters: fileCounters(s.files.Stats())}}
	if c, err := s.processes.Counters(); err == nil {
		out = append(out, &controlv1.Sensor{Name: "process", Counters: processCounters(c)})
	}
	h := s.hub.Stats()
	out = append(out, &controlv1.Sensor{Name: "events", Counters: map[string]uint64{"published": h.Events, "taps": uint64(h.Taps)}})
	if s.dropped != nil {
		out = append(out, &controlv1.Sensor{Name: "log", Counters: map[string]uint64{"dropped": s.dropped()}})
	}
	if s.recorder != nil {
		out = append(out, &controlv1.Sensor{Name: "recorder", Counters: recorderCounters(s.recorder.Stats())})
	}
	c := s.critical.Stats()
	return append(out, &controlv1.Sensor{Name: "critical", Counters: map[string]uint64{
		"files": uint64(c.Files), "trees": uint64(c.Trees), "packages": uint64(c.Packages),
	}})
}
