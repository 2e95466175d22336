package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"bailey/agent/config"
	"bailey/agent/control"
	"bailey/agent/health"
	"bailey/agent/journal"
	controlv1 "bailey/api/control/v1"
	"bailey/internal/window"
	"bailey/update/client"
	"bailey/update/release"
	"bailey/update/trust"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// updateDir is what the update client has, in the state directory.
const updateDir = "update"

// makeUpdates makes the update client, and what ends what it started.
func (a *Agent) makeUpdates() (*client.Client, func(), error) {
	c := &a.cfg.Update
	root, err := os.ReadFile(c.Root)
	if err != nil {
		return nil, nil, fmt.Errorf("read the repository's root: %w", err)
	}
	dir := filepath.Join(a.cfg.Agent.State, updateDir)
	trusted := trust.Config{Dir: filepath.Join(dir, "trust"), Root: root, Pace: trust.Pace{Rate: int64(c.Bandwidth.Size)}}
	if at, err := time.Parse(time.RFC3339, a.build.Time); err == nil {
		trusted.Built = at
	}
	repository, end, err := a.repository(trusted, c.Mirrors, c.Streams)
	if err != nil {
		return nil, nil, err
	}
	cfg := client.Config{
		Dir: dir, Repository: repository, Partial: filepath.Join(dir, fetchDir, "downloads"), Host: &hosts{newUpdateHost(a), &ownHost{a, a.own}}, OS: runtime.GOOS + "/" + runtime.GOARCH,
		Interval: c.Interval.Duration, Lease: c.Lease.Duration, Disk: int64(c.Disk.Size), For: map[release.Stream]client.Settings{}, OnMove: a.updateMoved,
		OnLook: func(l client.Look) { a.health.Set(lookEntry(l, c.Lease.Duration, time.Now())) },
	}
	if v, err := release.ParseVersion(strings.TrimPrefix(a.build.Version, "v")); err == nil {
		cfg.Platform = v
	}
	for _, text := range c.Streams {
		s, err := release.ParseStream(text)
		if err != nil {
			return nil, nil, err // checked with the configuration
		}
		cfg.Streams = append(cfg.Streams, s)
		if cfg.For[s], err = settings(c.For(text)); err != nil {
			return nil, nil, err
		}
	}
	made, err := client.New(cfg)
	return made, end, err
}

// settings is how the operator wants the releases of a stream to be taken.
func settings(s config.Stream) (client.Settings, error) {
	windows, err := window.ParseWeek(*s.Windows)
	return client.Settings{
		Shadow: s.Shadow.Duration, Watch: s.Watch.Duration, Defer: s.Defer.Duration, Manual: *s.Manual, Lag: *s.Lag, Windows: windows, Urgent: *s.Urgent,
	}, err
}

// updating is the update client as a stage, if the operator names mirrors. What cannot be read is a health entry: the agent
// protects without updates, too. It is made here and not with the agent: the agent before may have brought something in meanwhile.
func (a *Agent) updating() []stage {
	if len(a.cfg.Update.Mirrors) == 0 {
		return nil
	}
	return []stage{{"updates", func(ctx context.Context) error {
		made, end, err := a.makeUpdates()
		if err != nil {
			a.health.Set(health.Entry{
				Component: "update", Status: health.Failed, Summary: "nothing is fetched: " + err.Error(),
				Remedy: "set [update] right, put the repository's root where update.root says, and restart the agent",
			})
			a.log.Error("updates are off", "err", err)
			<-ctx.Done()
			return ctx.Err()
		}
		defer end()
		a.updates.Store(made)
		select {
		case <-a.products.Started():
		case <-ctx.Done():
			return ctx.Err()
		}
		return errors.Join(made.Run(ctx), ctx.Err())
	}}}
}

// silentLooks is how many looks in a row may fail before that is worth a word, where none ever succeeded: at a boot the network comes later.
const silentLooks = 4

// lookEntry says when nothing new can come in, and why: mirrors were not seen for longer than a release may wait for them.
func lookEntry(l client.Look, lease time.Duration, now time.Time) health.Entry {
	e := health.Entry{Component: "update.mirrors", Status: health.OK, Summary: "the mirrors say what is new"}
	if l.Problem == "" || l.At.IsZero() && l.Failed < silentLooks || !l.At.IsZero() && now.Sub(l.At) <= lease {
		return e
	}
	e.Status, e.Summary = health.Degraded, "no update comes in: "+l.Problem
	e.Remedy = "what is in force goes on; look at the network, the mirrors and the clock of this machine, then: bailey update check"
	return e
}

// updateMoved tells journal, log and health of a move.
func (a *Agent) updateMoved(m client.Move) {
	a.journal.Note(journal.KindUpdate, map[string]any{
		"stream": m.Stream, "version": m.Version, "from": string(m.From), "to": string(m.To), "reason": m.Reason,
	})
	say := a.log.Info
	e := health.Entry{Component: "update." + m.Stream, Status: health.OK, Summary: fmt.Sprintf("%s: %s", m.Version, m.To)}
	switch m.To {
	case client.Refused, client.RolledBack, client.RollBack:
		say = a.log.Warn
		e.Status, e.Summary = health.Degraded, fmt.Sprintf("%s is %s: %s", m.Version, m.To, m.Reason)
		e.Remedy = "the release before goes on; see: bailey update show " + m.Stream
	case client.Approve:
		e.Status, e.Summary = health.Degraded, fmt.Sprintf("%s waits for you: %s", m.Version, m.Reason)
		e.Remedy = "bailey update show " + m.Stream + ", then bailey update apply " + m.Stream
	}
	say("update", "stream", m.Stream, "version", m.Version, "from", m.From, "to", m.To, "reason", m.Reason)
	a.health.Set(e)
}

// updates shows and steers updates for the operator.
type updates Agent

var _ control.Updates = (*updates)(nil)

// errNoUpdates says that nothing is followed.
var errNoUpdates = &control.Fault{
	Class: control.Refused, Message: "this agent follows no repository",
	Hint: "name mirrors, the root and streams under [update] in the configuration, and restart the agent",
}

// List returns the streams.
func (u *updates) List(context.Context) (*controlv1.UpdateListResponse, error) {
	c := u.updates.Load()
	if c == nil {
		return &controlv1.UpdateListResponse{}, nil
	}
	l := c.Looked()
	m := &controlv1.UpdateListResponse{
		Enabled: true, Looked: sinceEpoch(l.At), Tried: sinceEpoch(l.Tried), Problem: valid(l.Problem), Expires: sinceEpoch(l.Expires),
	}
	for _, s := range c.Status() {
		m.Streams = append(m.Streams, streamMessage(&s))
	}
	return m, nil
}

func sinceEpoch(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func streamMessage(s *client.Status) *controlv1.UpdateStream {
	r := &s.Record
	m := &controlv1.UpdateStream{
		Stream: s.Stream.String(), Installed: r.Installed, Waiting: valid(s.Waiting), Paused: r.Paused, Pinned: r.Pinned, Frozen: valid(r.Frozen), Problem: valid(r.Problem),
		Overrides: r.Overrides(), Settings: settingsMessage(&s.Settings),
	}
	for _, o := range s.Offers {
		v := o.Release.Version.String()
		m.Offers = append(m.Offers, &controlv1.UpdateOffer{
			Version: v, Urgency: string(o.Release.Urgency), Epoch: o.Release.Epoch, Bytes: uint64(o.Length), Bad: valid(r.Bad[v]),
		})
	}
	if c := r.Current; c != nil {
		m.Update = &controlv1.Update{
			Version: c.Offer.Release.Version.String(), State: string(c.State), Reason: valid(c.Reason), Began: sinceEpoch(c.Began), Changed: sinceEpoch(c.Changed),
			Until: sinceEpoch(c.Until), Release: c.Release, Previous: c.Previous, Asks: c.Asks, Forced: c.Forced, Rehearsal: kept(c.Rehearsal, &controlv1.Rehearsal{}),
			Comparison: kept(c.Shadow, &controlv1.Comparison{}), Fetched: uint64(s.Fetched), Bytes: uint64(s.Bytes),
		}
	}
	return m
}

func settingsMessage(s *client.Settings) *controlv1.UpdateSettings {
	m := &controlv1.UpdateSettings{Shadow: int64(s.Shadow), Watch: int64(s.Watch), Defer: int64(s.Defer), Manual: s.Manual, Lag: uint32(s.Lag), UrgentIgnoresWindows: s.Urgent}
	for _, w := range s.Windows {
		m.Windows = append(m.Windows, w.String())
	}
	return m
}

// kept reads a report into m; one that is not there or cannot be read is none.
func kept[M proto.Message](report json.RawMessage, m M) M {
	var none M
	if len(report) == 0 || (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(report, m) != nil {
		return none
	}
	return m
}

// Check has the mirrors looked at.
func (u *updates) Check(context.Context) error {
	c := u.updates.Load()
	if c == nil {
		return errNoUpdates
	}
	c.Check()
	return nil
}

// Set does what the operator wants of a stream.
func (u *updates) Set(_ context.Context, r *controlv1.UpdateSetRequest) (*controlv1.UpdateStream, error) {
	c := u.updates.Load()
	if c == nil {
		return nil, errNoUpdates
	}
	id, err := streamOf(r.GetStream())
	if err != nil {
		return nil, err
	}
	var v release.Version
	if r.GetVersion() != "" {
		if v, err = release.ParseVersion(r.GetVersion()); err != nil {
			return nil, &control.Fault{Class: control.Invalid, Message: err.Error()}
		}
	}
	do := map[string]func() error{
		"apply":    func() error { return c.Approve(id, r.GetForce()) },
		"pause":    func() error { return c.Pause(id) },
		"resume":   func() error { return c.Resume(id) },
		"pin":      func() error { return c.Pin(id, v) },
		"skip":     func() error { return c.Skip(id, v) },
		"rollback": func() error { return c.Back(id) },
	}[r.GetAction()]
	switch {
	case do == nil:
		return nil, &control.Fault{Class: control.Invalid, Message: fmt.Sprintf("%q is no action", r.GetAction()), Hint: "apply, pause, resume, pin, skip or rollback"}
	case r.GetAction() == "skip" && v.IsZero():
		return nil, &control.Fault{Class: control.Invalid, Message: "no version is named", Hint: "name the one to skip"}
	}
	if err := do(); err != nil {
		return nil, faultOf(id, err)
	}
	for _, s := range c.Status() {
		if s.Stream == id {
			return streamMessage(&s), nil
		}
	}
	return nil, errNoUpdates // it was followed a moment ago
}

func streamOf(text string) (release.Stream, error) {
	id, err := release.ParseStream(text)
	if err != nil {
		return id, &control.Fault{Class: control.Invalid, Message: err.Error(), Hint: "see: bailey update list"}
	}
	return id, nil
}

// faultOf says what is wrong with what an operator wants of a stream.
func faultOf(id release.Stream, err error) error {
	switch {
	case errors.Is(err, client.ErrUnknown):
		return &control.Fault{Class: control.NotFound, Message: err.Error(), Hint: "see: bailey update list"}
	case errors.Is(err, client.ErrNothing):
		return &control.Fault{Class: control.Refused, Message: err.Error(), Hint: "see: bailey update show " + id.String()}
	}
	return err
}

// Plan says what would come of a stream.
func (u *updates) Plan(_ context.Context, stream string, force bool) (*controlv1.UpdatePlanResponse, error) {
	c := u.updates.Load()
	if c == nil {
		return nil, errNoUpdates
	}
	id, err := streamOf(stream)
	if err != nil {
		return nil, err
	}
	p, err := c.Preview(id, force)
	if err != nil {
		return nil, faultOf(id, err)
	}
	m := &controlv1.UpdatePlanResponse{
		Stream: id.String(), Version: p.Version, Waiting: valid(p.Why), State: string(p.State), Base: p.Base,
		Bytes: uint64(p.Bytes), Fetched: uint64(p.Fetched), Requires: p.Requires,
	}
	for _, w := range p.Waits {
		m.Waits = append(m.Waits, &controlv1.UpdateWait{State: string(w.State), Reason: valid(w.Reason)})
	}
	for _, s := range p.Ahead {
		m.Ahead = append(m.Ahead, string(s))
	}
	for _, o := range p.Others {
		m.Others = append(m.Others, &controlv1.UpdateOther{Version: o.Version, Reason: valid(o.Reason)})
	}
	return m, nil
}

// History returns the newest moves.
func (u *updates) History(_ context.Context, limit int) ([]*controlv1.UpdateMove, error) {
	c := u.updates.Load()
	if c == nil {
		return nil, errNoUpdates
	}
	moves, err := c.History(limit)
	var out []*controlv1.UpdateMove
	for _, m := range moves {
		out = append(out, &controlv1.UpdateMove{
			Time: sinceEpoch(m.Time), Stream: m.Stream, Version: m.Version, From: string(m.From), To: string(m.To), Reason: valid(m.Reason),
		})
	}
	return out, err
}
