package hub

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
)

// wire is a product's end in memory: it takes a bounded number of frames until the product reads them.
type wire struct {
	mu       sync.Mutex
	capacity int // frames that fit; 0: any number
	used     int
	broken   bool
	frames   []frame // in the order in which the product would read them
}

type frame struct {
	kind     string // event, question, lost, lost_question, state, withdrawn
	seq, to  uint64
	id       uint64
	text     string
	payload  []byte
	shadow   bool
	critical bool
}

var errBroken = errors.New("socket is closed")

func (w *wire) put(f frame) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken {
		return errBroken
	}
	if w.capacity != 0 && w.used >= w.capacity {
		return fmt.Errorf("send: %w", event.ErrFull)
	}
	w.used++
	w.frames = append(w.frames, f)
	return nil
}

func (w *wire) SendQuestion(id, seq, _ uint64, shadow, critical bool, payload []byte, _ int) error {
	return w.put(frame{kind: "question", id: id, seq: seq, to: seq, shadow: shadow, critical: critical, payload: slices.Clone(payload)})
}

func (w *wire) SendEvents(batch []event.Packet) (int, error) {
	for i, p := range batch {
		if err := w.put(frame{kind: "event", seq: p.Seq, to: p.Seq, payload: slices.Clone(p.Payload)}); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

func (w *wire) SendLost(questions bool, from, to uint64, cause string) error {
	kind := "lost"
	if questions {
		kind = "lost_question"
	}
	return w.put(frame{kind: kind, seq: from, to: to, text: cause})
}

func (w *wire) SendState(authority, reason string) error {
	return w.put(frame{kind: "state", text: authority + ": " + reason})
}

func (w *wire) SendWithdrawn(id uint64) error { return w.put(frame{kind: "withdrawn", id: id}) }

// read makes room for n more frames and returns all that came so far.
func (w *wire) read(n int) []frame {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used = max(0, w.used-n)
	return slices.Clone(w.frames)
}

func (w *wire) of(kind string) []frame {
	var out []frame
	for _, f := range w.read(0) {
		if f.kind == kind {
			out = append(out, f)
		}
	}
	return out
}

// contiguous fails unless the frames of the given kinds carry every number from 1 to last once, in order.
func contiguous(tb testing.TB, frames []frame, last uint64, kinds ...string) {
	tb.Helper()
	next := uint64(1)
	for _, f := range frames {
		if !slices.Contains(kinds, f.kind) {
			continue
		}
		if f.seq != next || f.to < f.seq {
			tb.Fatalf("%s %d to %d, expected %d", f.kind, f.seq, f.to, next)
		}
		next = f.to + 1
	}
	if next != last+1 {
		tb.Fatalf("numbers end at %d, expected %d", next-1, last)
	}
}

// numbers encodes events and questions as their number alone.
type numbers struct{}

func (numbers) AppendEvent(dst []byte, e *event.Event) []byte {
	return binary.LittleEndian.AppendUint64(dst, e.Seq)
}

func (numbers) AppendQuestion(dst []byte, q *event.Question) []byte {
	return binary.LittleEndian.AppendUint64(dst, q.ID)
}

// engine records what the hub tells the verdict engine.
type engine struct {
	mu    sync.Mutex
	calls []string
}

func (e *engine) note(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, fmt.Sprintf(format, args...))
}

func (e *engine) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.calls
	e.calls = nil
	return out
}

func (e *engine) Answer(product int, id uint64, deny, cacheFile bool) error {
	e.note("answer %d %d %v %v", product, id, deny, cacheFile)
	if id == 0 {
		return errors.New("not asked")
	}
	return nil
}

func (e *engine) Extend(product int, id, deadline uint64) error {
	e.note("extend %d %d %d", product, id, deadline)
	return nil
}
func (e *engine) Joined(product int, name string)  { e.note("joined %d %s", product, name) }
func (e *engine) Renamed(product int, name string) { e.note("renamed %d %s", product, name) }
func (e *engine) Gone(product int)                 { e.note("gone %d", product) }
func (e *engine) Brake(product int)                { e.note("brake %d", product) }
func (e *engine) Invalidate(cause string) error    { e.note("invalidate %s", cause); return nil }

func boot() uint64 { return uint64(time.Now().UnixNano()) }

func newHub(tb testing.TB, edit func(*Config)) (*Hub, *engine) {
	tb.Helper()
	cfg := Config{Encoder: numbers{}, Now: boot, Health: health.NewRegistry()}
	if edit != nil {
		edit(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	e := &engine{}
	h.Bind(e)
	tb.Cleanup(h.Close)
	return h, e
}

// everything is a member that is granted all there is.
func everything(name string) Member {
	return Member{
		Name: name, Release: "1", See: event.KindsOf(event.Kinds()...), Decide: event.KindsOf(event.Exec, event.Open),
		Deny: true, OpenScope: []string{"/home", "/tmp"},
	}
}

func attach(tb testing.TB, h *Hub, m Member, w *wire, s Subscription) *Client {
	tb.Helper()
	c, err := h.Attach(m, w)
	if err != nil {
		tb.Fatal(err)
	}
	if _, _, refused := c.Subscribe(s); len(refused) > 0 {
		tb.Fatal(refused)
	}
	return c
}

func closeWrite(path string) *event.Event {
	return &event.Event{Kind: event.CloseWrite, File: &event.FileDetail{File: event.File{Path: path}}}
}
