package sdktest

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"
	"bailey/sdk"
)

// Question is one question with all that a test may want to choose.
type Question struct {
	Kind     sdk.Kind
	Process  *sdk.Process  // default: this test's process
	Path     string        // opened and passed as the descriptor; its File is filled from it
	File     *sdk.File     // instead of what Path says; alone: a question without descriptor
	Shadow   bool          // the answer does not count
	Critical bool          // the file is in the critical set
	Deadline time.Duration // from now; default Options.Timeout
}

// Ask asks about the file at path, or about a file with this content and an invented path if content is given, and
// returns the answer. process may be nil. The test fails if there is none within Options.Timeout.
func (a *Agent) Ask(kind sdk.Kind, process *sdk.Process, path string) sdk.Answer {
	a.t.Helper()
	return a.AskQuestion(Question{Kind: kind, Process: process, Path: path})
}

// AskContent asks about a new file named name with the given content.
func (a *Agent) AskContent(kind sdk.Kind, process *sdk.Process, name string, content []byte) sdk.Answer {
	a.t.Helper()
	path := filepath.Join(a.t.TempDir(), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o700); err != nil {
		a.t.Fatal(err)
	}
	return a.Ask(kind, process, path)
}

// AskQuestion asks and returns the answer; the test fails if there is none within Options.Timeout.
func (a *Agent) AskQuestion(q Question) sdk.Answer {
	a.t.Helper()
	answer, ok := a.Begin(q).Wait()
	if !ok {
		a.t.Fatalf("no answer to the question about %s %s", q.Kind, q.Path)
	}
	return answer
}

// Pending is a question that was asked and whose answer is yet to be waited for.
type Pending struct {
	ID uint64
	a  *Agent
	c  chan reply
}

// Begin asks without waiting.
func (a *Agent) Begin(q Question) *Pending {
	a.t.Helper()
	if q.Process == nil {
		q.Process = &sdk.Process{
			Key: &sdk.ProcessKey{Pid: uint32(os.Getpid()), Start: 1}, Comm: filepath.Base(os.Args[0]),
			Executable: &sdk.File{Path: os.Args[0]}, Credentials: &sdk.Credentials{Uid: uint32(os.Getuid())},
		}
	}
	if q.Deadline == 0 {
		q.Deadline = a.o.Timeout
	}
	fd := -1
	if q.Path != "" {
		f, err := os.Open(q.Path)
		if err != nil {
			a.t.Fatal(err)
		}
		defer f.Close()
		fd = int(f.Fd())
		if q.File == nil {
			if q.File, err = fileOf(f); err != nil {
				a.t.Fatal(err)
			}
		}
	}
	p := &Pending{a: a, c: make(chan reply, 1)}
	var seq uint64
	a.update(func() {
		a.nextID++
		a.questionSeq++
		p.ID, seq = a.nextID, a.questionSeq
		a.waiting[p.ID] = p.c
	})
	h := productv1.Header{Kind: productv1.FrameQuestion, ID: p.ID, Seq: seq, Deadline: boottime() + uint64(q.Deadline)}
	if q.Shadow {
		h.Flags |= productv1.FlagShadow
	}
	if q.Critical {
		h.Flags |= productv1.FlagCritical
	}
	a.send(h, &productv1.Question{Kind: q.Kind, Time: boottime(), Process: q.Process, File: q.File}, fd)
	return p
}

// Wait returns the answer; ok is false if the product ended, Resume was called or Options.Timeout passed without one.
func (p *Pending) Wait() (answer sdk.Answer, ok bool) {
	timeout := time.NewTimer(p.a.o.Timeout)
	defer timeout.Stop()
	select {
	case r := <-p.c:
		return r.answer, r.ok
	case <-timeout.C:
		return sdk.Allow, false
	}
}

// Withdraw tells the product that the question is decided. An answer that crosses it is accepted.
func (p *Pending) Withdraw() {
	p.a.send(productv1.Header{Kind: productv1.FrameWithdrawn, ID: p.ID}, nil, -1)
}

// Extended returns the time from now that the product asked for last, 0 if it did not.
func (p *Pending) Extended() time.Duration {
	p.a.mu.Lock()
	defer p.a.mu.Unlock()
	return p.a.extended[p.ID]
}

type message interface {
	MarshalVT() ([]byte, error)
}

// send sends one frame; a product that has ended is met by whoever waits for it.
func (a *Agent) send(h productv1.Header, m message, fd int) {
	a.t.Helper()
	var payload []byte
	if m != nil {
		var err error
		if payload, err = m.MarshalVT(); err != nil {
			a.t.Fatalf("encode frame of kind %d: %v", h.Kind, err)
		}
	}
	if err := a.sock.Send(&h, payload, fd, wire.Block); err != nil && !errors.Is(err, wire.ErrClosed) {
		a.t.Fatalf("send frame of kind %d: %v", h.Kind, err)
	}
}
