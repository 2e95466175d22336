package trust

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"
)

// Mirror is where a repository's two trees are, as URLs.
type Mirror struct {
	Metadata string
	Targets  string
}

// At returns the mirror at a URL that has the two trees side by side.
func At(base string) Mirror { return Mirror{Metadata: base + "/metadata", Targets: base + "/targets"} }

// Config says what a client trusts and where it looks.
type Config struct {
	Dir     string   // the client's own; made if it is not there
	Root    []byte   // the root that came with the agent
	Mirrors []Mirror // tried in this order
	// Built is when the agent was: no time before it is believed. Zero means that any is.
	Built time.Time
	// Minimum are the oldest versions that a machine without a past accepts: what there was when the agent was built.
	Minimum   Versions
	Now       func() time.Time  // the wall clock; nil means time.Now
	Transport http.RoundTripper // nil means Transport()
	Pace      Pace
	LeaveFree int64 // bytes that a download leaves free on its file system; 64 MiB if 0
	Rules     Rules // HouseRules, but for conformance suites
}

// Versions counts what a repository has signed.
type Versions struct {
	Root      int64 `json:"root"`
	Timestamp int64 `json:"timestamp"`
	Snapshot  int64 `json:"snapshot"`
}

// rootsAtOnce is how many new roots one look follows.
const rootsAtOnce = 256

// rootRest is how long a mirror is believed that there is no newer root.
const rootRest = 10 * time.Minute

// Client follows one repository. It is not safe for concurrent use, and no two clients work in one directory at a time.
type Client struct {
	cfg     Config
	state   state
	mirrors []trees

	stamp  cached            // of the timestamp, to ask whether it changed
	noRoot map[int]time.Time // by mirror: when it was asked for a newer root in vain
	atRoot int64             // the root that noRoot is about
}

// trees are a mirror's.
type trees struct {
	url               string
	metadata, targets *tree
}

// cached is the newest timestamp of a mirror with its tag.
type cached struct {
	mirror int
	tag    string
	text   []byte
}

// New makes a client. It reads nothing yet.
func New(cfg Config) (*Client, error) {
	if cfg.Dir == "" || len(cfg.Root) == 0 || len(cfg.Mirrors) == 0 {
		return nil, errors.New("follow a repository: a directory, a root and a mirror are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Transport == nil {
		cfg.Transport = Transport()
	}
	cfg.Pace = cfg.Pace.orDefault()
	if cfg.LeaveFree == 0 {
		cfg.LeaveFree = 64 << 20
	}
	c := &Client{cfg: cfg, state: state{dir: cfg.Dir}, noRoot: map[int]time.Time{}}
	for _, m := range cfg.Mirrors {
		meta, err := newSource(m.Metadata, cfg.Transport)
		if err != nil {
			return nil, err
		}
		targets, err := newSource(m.Targets, cfg.Transport)
		if err != nil {
			return nil, err
		}
		c.mirrors = append(c.mirrors, trees{url: m.Metadata, metadata: &tree{source: meta, now: cfg.Now}, targets: &tree{source: targets, now: cfg.Now}})
	}
	return c, nil
}

// Refresh looks at the mirrors, one after the other until one is sound, and returns what it says now. The view is valid until the next look
// and must be closed. The error says what was wrong with each mirror.
func (c *Client) Refresh(ctx context.Context) (*View, error) {
	if err := c.state.prepare(); err != nil {
		return nil, refuse(c.cfg.Dir, ErrState, "%v", err)
	}
	unlock, err := c.state.lock()
	if err != nil {
		return nil, err
	}
	var all error
	for i := range c.mirrors {
		v, err := c.visit(ctx, i)
		if err == nil {
			v.unlock = unlock
			return v, nil
		}
		all = errors.Join(all, fmt.Errorf("%s: %w", c.mirrors[i].url, err))
		if ctx.Err() != nil || errors.Is(err, ErrState) {
			break
		}
	}
	unlock()
	return nil, all
}

// silence is what a mirror says that has nothing to say: object stores say to everything that it is not there, when it is too much for them.
var silence = []error{ErrUnavailable, ErrSlow, ErrNotFound}

// visit looks at one mirror. One that was silent is asked one question before all others.
func (c *Client) visit(ctx context.Context, mirror int) (*View, error) {
	from := c.mirrors[mirror].metadata
	if from.failing() {
		if _, _, err := small(ctx, from, timestampFile, maxRole, "", c.cfg.Pace); err != nil {
			return nil, from.missed(ctx, err, silence...)
		}
	}
	v, err := c.lookAt(ctx, mirror)
	if err != nil {
		return nil, from.missed(ctx, err, silence...)
	}
	from.sound()
	return v, nil
}

// lookAt looks at one mirror, and once more if what is wrong may be that a newer root was not asked for.
func (c *Client) lookAt(ctx context.Context, mirror int) (*View, error) {
	l := &look{c: c, mirror: mirror}
	v, err := l.all(ctx)
	if l.rested && (errors.Is(err, ErrSignature) || errors.Is(err, ErrExpired)) {
		delete(c.noRoot, mirror)
		v, err = (&look{c: c, mirror: mirror}).all(ctx)
	}
	return v, err
}

// downloads is where the client's own downloads are.
func (c *Client) downloads() string { return filepath.Join(c.cfg.Dir, downloadsDir) }
