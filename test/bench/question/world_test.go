package question_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/hub"
	"bailey/agent/product/link"
	"bailey/agent/sensor/file"
	"bailey/agent/verdict"
	productv1 "bailey/api/product/v1"
	"bailey/internal/boottime"

	"golang.org/x/sys/unix"
)

// world is the agent's question path, wired as in the agent, on a file system of its own.
type world struct {
	tb     testing.TB
	dir    string
	hub    *hub.Hub
	engine *verdict.Engine
	files  *file.Sensor
	opener *openerProc
	member []*member
}

// population answers the file sensor's questions about processes: the opener is the only one there is beside the platform.
type population struct {
	own, opener uint32
	process     *event.Process
}

func (p *population) Lookup(pid uint32) *event.Process {
	if pid == p.opener {
		return p.process
	}
	return nil
}

func (p *population) Load(uint32) (*event.Process, error) { return p.process, nil }
func (p *population) Platform(pid uint32) bool            { return pid == p.own }
func (p *population) NeverAsk(uint32) bool                { return false }

const fileCount = 64

// patient is a deadline that no product misses however busy the machine is: a miss would shorten an open.
var patient = map[event.Kind]time.Duration{event.Open: time.Minute}

func newWorld(b *testing.B) *world {
	b.Helper()
	w := &world{tb: b, dir: scratch(b)}
	for i := range fileCount {
		if err := os.WriteFile(filepath.Join(w.dir, strconv.Itoa(i)), []byte("content"), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	var err error
	if w.hub, err = hub.New(hub.Config{Encoder: new(link.Codec), Now: boottime.Now}); err != nil {
		b.Fatal(err)
	}
	w.engine, err = verdict.New(verdict.Config{
		Electorate: w.hub, Now: boottime.Now, Outcome: w.hub.Publish, OnAuthority: w.hub.SetDegraded, Deadlines: patient,
		Wanted: func() bool { return w.hub.Wants(event.Verdict) }, FlushKernel: func() error { return w.files.FlushCache() },
	})
	if err != nil {
		b.Fatal(err)
	}
	w.hub.Bind(w.engine)
	w.opener = startOpener(b, w.dir)
	pid := uint32(w.opener.cmd.Process.Pid)
	people := &population{own: uint32(os.Getpid()), opener: pid, process: &event.Process{
		Key: event.ProcessKey{PID: pid, Start: boottime.Now()}, Comm: "opener",
		Executable: event.File{Path: "/usr/bin/opener", Dev: 1, Ino: 2, CTime: 3, Size: 4},
	}}
	w.files, err = file.New(file.Config{
		Watch: []string{w.dir}, Processes: people, Identity: people, Ask: w.engine.Ask, Emit: w.hub.Publish,
		Health: health.NewRegistry(),
	})
	if err != nil {
		b.Fatal(err)
	}
	w.files.SetOpenScope([]string{w.dir})
	w.run()
	// Files that were written just now are not cacheable, which would spare the engine a look at its cache.
	<-time.After(150 * time.Millisecond)
	return w
}

// run starts the parts and ends them, in the agent's order, with the bench.
func (w *world) run() {
	start := func(run func(context.Context) error) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		w.tb.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				w.tb.Error(err)
			}
		})
	}
	w.tb.Cleanup(w.hub.Close)
	start(w.engine.Run)
	start(w.files.Run)
	<-w.files.Ready()
	w.tb.Cleanup(w.detachAll)
}

func scratch(b *testing.B) string {
	b.Helper()
	dir, err := filepath.EvalSymlinks(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	if err := unix.Mount("scratch", dir, "tmpfs", 0, "size=4m"); err != nil {
		b.Fatalf("mount a scratch file system: %v", err)
	}
	b.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			b.Errorf("unmount the scratch file system: %v", err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

// member is one running product; as a link.Handler it is what the agent's session is.
type member struct {
	*hub.Client
	conn       *link.Conn
	cmd        *exec.Cmd
	subscribed chan struct{}
	done       chan error
}

// Subscribe takes the product's subscription.
func (m *member) Subscribe(s *productv1.Subscribe) error {
	kinds, _ := link.KindsFromProto(s.GetQuestions())
	m.Client.Subscribe(hub.Subscription{Questions: kinds})
	close(m.subscribed)
	return nil
}

// Finding is never called: the product reports nothing.
func (m *member) Finding(*productv1.Finding) error               { return nil }
func (*member) InstallRule(uint64, *productv1.RuleInstall) error { return nil }
func (*member) RemoveRule(uint64, *productv1.RuleRemove) error   { return nil }

// attach starts a product and returns when it is asked.
func (w *world) attach(name string) {
	w.tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		w.tb.Fatal(err)
	}
	m := &member{subscribed: make(chan struct{}), done: make(chan error, 1), cmd: exec.Command("/proc/self/exe")}
	theirs := os.NewFile(uintptr(fds[1]), "the product's end")
	m.cmd.Env = []string{envProduct + "=1"}
	m.cmd.ExtraFiles = []*os.File{theirs}
	m.cmd.Stderr = os.Stderr
	if err := ordinary(m.cmd); err != nil {
		w.tb.Fatal(err)
	}
	_ = theirs.Close()
	if m.conn, err = link.New(fds[0], link.Options{}); err != nil {
		w.tb.Fatal(err)
	}
	if err := m.conn.SendWelcome(&productv1.Welcome{Protocol: productv1.Protocol, Authority: "live"}); err != nil {
		w.tb.Fatal(err)
	}
	grant := hub.Member{Name: name, Decide: event.KindsOf(event.Open), Deny: true, OpenScope: []string{w.dir}}
	if m.Client, err = w.hub.Attach(grant, m.conn); err != nil {
		w.tb.Fatal(err)
	}
	go func() {
		err := m.conn.Run(m)
		w.hub.Detach(m.Client)
		_ = m.conn.Close()
		m.done <- err
	}()
	<-m.subscribed
	w.member = append(w.member, m)
}

// detachAll ends the products.
func (w *world) detachAll() {
	for _, m := range w.member {
		if err := m.conn.SendStop(boottime.Now() + uint64(time.Second)); err != nil {
			w.tb.Errorf("stop a product: %v", err)
			_ = m.cmd.Process.Kill()
		}
	}
	for _, m := range w.member {
		if err := m.cmd.Wait(); err != nil {
			w.tb.Errorf("product: %v", err)
		}
		if err := <-m.done; err != nil {
			w.tb.Errorf("read a product's socket: %v", err)
		}
	}
	w.member = nil
}

// check fails unless every product was asked every question and answered it in time.
func (w *world) check() {
	w.tb.Helper()
	for _, p := range w.engine.Stats().Products {
		if p.Live == 0 || p.Live != p.Answered {
			w.tb.Errorf("product %s was asked %d questions and answered %d: %+v", p.Name, p.Live, p.Answered, p)
		}
	}
}
