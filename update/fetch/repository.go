package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"bailey/update/client"
	"bailey/update/release"
	"bailey/update/trust"
)

// Process is a process that runs Serve.
type Process interface {
	Conn() net.Conn
	// End ends it at once and returns what it said last. It may be called more than once.
	End() string
}

// Config is what a Repository works with. The times have defaults.
type Config struct {
	Dir   string // of the process; the directory itself is not the process's to move
	Start func() (Process, error)
	// Place says of what the process was started, and what it was given to read: where that is another now, so must be the process.
	Place    func() string
	Setup    Setup
	Trust    trust.Config  // the agent's own; of the mirrors only directories
	Patience time.Duration // for a look, and for a download that does not come on; 5 min
	Spare    int64         // bytes that the process may have besides what it is to fetch; 64 MiB
}

// Repository is a client.Repository whose mirrors another process reads.
type Repository struct {
	cfg   Config
	own   *trust.Client
	hurry atomic.Bool

	// What follows is of who looks, one at a time.
	process Process
	in      lines
	place   string
	said    map[string]string // problems of the newest look
}

var _ client.Repository = (*Repository)(nil)

// New makes a repository. It starts nothing yet.
func New(cfg Config) (*Repository, error) {
	if cfg.Patience == 0 {
		cfg.Patience = 5 * time.Minute
	}
	if cfg.Spare == 0 {
		cfg.Spare = 64 << 20
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("follow a repository: %w", err)
	}
	own := cfg.Trust
	own.Mirrors = append([]trust.Mirror{trust.At("file://" + cfg.Dir)}, own.Mirrors...)
	c, err := trust.New(own)
	return &Repository{cfg: cfg, own: c}, err
}

// Hurry has mirrors asked at the next look that are left alone.
func (r *Repository) Hurry() { r.hurry.Store(true) }

// Close ends the process.
func (r *Repository) Close() { r.end() }

// Look has the process look, and verifies what it found. Where it found nothing there can still be a directory.
func (r *Repository) Look(ctx context.Context) (client.View, error) {
	r.drop("metadata/timestamp.json") // what was news is none, unless the process brings it
	a, err := r.ask(ctx, request{Hurry: r.hurry.Swap(false)}, 0)
	if err = errors.Join(err, a.err()); err != nil && len(r.cfg.Trust.Mirrors) == 0 {
		return nil, r.mended(err)
	}
	r.said = a.Problems
	r.own.Hurry()
	v, verr := r.own.Refresh(ctx)
	if verr != nil {
		return nil, r.mended(errors.Join(err, verr))
	}
	return &view{View: v, r: r}, nil
}

// mended makes the process begin anew where what it kept cannot be used: nothing of it is worth anything by itself.
func (r *Repository) mended(err error) error {
	if !errors.Is(err, trust.ErrState) {
		return err
	}
	r.end()
	root, rerr := os.OpenRoot(r.cfg.Dir)
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	return errors.Join(err, root.RemoveAll("trust"), root.Close())
}

// view is a trust.View that has the process fetch what is not here.
type view struct {
	*trust.View
	r *Repository
}

// Plan is the view's own, with the process's words where it brought nothing.
func (v *view) Plan(ctx context.Context, streams ...release.Stream) (trust.Plan, error) {
	p, err := v.View.Plan(ctx, streams...)
	for i := range p.Streams {
		if why := v.r.said[p.Streams[i].Stream]; why != "" && p.Streams[i].Problem != "" {
			p.Streams[i].Problem = why
		}
	}
	return p, err
}

// Download takes a target from a directory that has it, else has the process fetch it into its own.
func (v *view) Download(ctx context.Context, t trust.Target, dir string) (string, error) {
	if path, err := v.View.Download(ctx, t, dir); err == nil || ctx.Err() != nil || errors.Is(err, trust.ErrSpace) {
		return path, err
	}
	a, err := v.r.ask(ctx, request{Get: &t}, t.Length)
	if err = errors.Join(err, a.err()); err != nil {
		return "", err
	}
	path, err := v.View.Download(ctx, t, dir)
	v.r.drop("targets")
	return path, err
}

// ask has the process do something, and ends it if that is not done in time, or too much comes.
func (r *Repository) ask(ctx context.Context, q request, length int64) (a answer, err error) {
	if err := r.ready(); err != nil {
		return a, err
	}
	why := ""
	watched, stop := make(chan struct{}), make(chan struct{})
	p := r.process
	go func() {
		defer close(watched)
		if why = r.watch(ctx, stop, q.Get, length); why != "" {
			p.End()
		}
	}()
	if err = r.send(q); err == nil {
		err = r.in.next(&a)
	}
	close(stop)
	<-watched
	switch {
	case ctx.Err() != nil:
		r.end()
		return a, ctx.Err()
	case why != "":
		err = errors.New(why)
	case err == nil:
		return a, nil
	}
	return answer{}, r.failed(err)
}

// failed ends the process and says why nothing came of it, with what it said last.
func (r *Repository) failed(err error) error {
	if said := strings.TrimSpace(r.end()); said != "" {
		err = fmt.Errorf("%w; it said: %q", err, lastLines(said))
	}
	return &told{text: fmt.Sprintf("the process that fetches did not do it: %v", err), class: trust.ErrUnavailable}
}

// lastLines is as much of the end of a text as is read in an error: where a program panics, its first line.
func lastLines(s string) string {
	if i := strings.LastIndex(s, "panic: "); i >= 0 {
		s, _, _ = strings.Cut(s[i:], "\n")
	}
	return s[max(0, len(s)-200):]
}

// ready starts the process if there is none, or not as it would be started now.
func (r *Repository) ready() error {
	place := ""
	if r.cfg.Place != nil {
		place = r.cfg.Place()
	}
	if r.process != nil && place != r.place {
		r.end()
	}
	if r.process != nil {
		return nil
	}
	p, err := r.cfg.Start()
	if err != nil {
		return fmt.Errorf("start the process that fetches: %w", err)
	}
	r.process, r.in, r.place = p, linesOf(p.Conn()), place
	if err := r.send(r.cfg.Setup); err != nil {
		return r.failed(err)
	}
	return nil
}

// send tells the process something, which it has to read.
func (r *Repository) send(v any) error {
	c := r.process.Conn()
	return errors.Join(c.SetWriteDeadline(time.Now().Add(r.cfg.Patience)), send(c, v))
}

func (r *Repository) end() (said string) {
	if r.process != nil {
		said = r.process.End()
		r.process = nil
	}
	return said
}

// watchEvery is how often a process at work is looked at.
const watchEvery = time.Second

// watch says why a process is not waited for any more; empty when stop is closed first.
func (r *Repository) watch(ctx context.Context, stop <-chan struct{}, get *trust.Target, length int64) string {
	tick := time.NewTicker(min(watchEvery, r.cfg.Patience/4))
	defer tick.Stop()
	last, since := int64(-1), time.Now()
	for {
		select {
		case <-stop:
			return ""
		case <-ctx.Done():
			return "nobody waits any more"
		case <-tick.C:
		}
		if n := r.used(); n > r.cfg.Spare+2*length {
			return fmt.Sprintf("it wrote %d bytes", n)
		}
		if n := r.come(get); n > last {
			last, since = n, time.Now()
		}
		if time.Since(since) > r.cfg.Patience {
			return fmt.Sprintf("nothing came of it for %v", r.cfg.Patience)
		}
	}
}

// come is how much of a download is there.
func (r *Repository) come(t *trust.Target) int64 {
	if t == nil {
		return 0
	}
	info, err := os.Lstat(filepath.Join(r.Partial(), t.SHA256+trust.PartSuffix))
	if err != nil {
		return 0
	}
	return info.Size()
}

// Partial is the directory in which downloads grow.
func (r *Repository) Partial() string { return filepath.Join(r.cfg.Dir, "downloads") }

// used is how many bytes the process's files have.
func (r *Repository) used() (n int64) {
	_ = filepath.WalkDir(r.cfg.Dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil // what went meanwhile is none
	})
	return n
}

// drop removes something from the process's directory, wherever links in it lead.
func (r *Repository) drop(name string) {
	root, err := os.OpenRoot(r.cfg.Dir)
	if err != nil {
		return
	}
	defer func() { _ = root.Close() }()
	_ = root.RemoveAll(name)
}
