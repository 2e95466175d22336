package decide

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"bailey/products/allowlist/digest"
	"bailey/products/allowlist/policy"
	"bailey/sdk"
	"bailey/sdk/packagedb"
)

// Config says where the product finds its things.
type Config struct {
	PolicyFile string        // default "policy.toml"
	State      string        // directory for the last good policy; empty: it is not kept
	Root       string        // of the package databases; default "/"
	Poll       time.Duration // how often policy and package databases are looked at; default 1 s
	Settle     time.Duration // how long a package manager counts as working after its last write; default 10 s
	Digests    digest.Config
	Log        *slog.Logger
}

// Decider is the product. Safe for concurrent use.
type Decider struct {
	cfg     Config
	db      *packagedb.DB
	digests *digest.Cache
	policy  atomic.Pointer[policy.Policy]
	opens   bool // open questions are asked too
	maxWait time.Duration
	reports reporter

	loaded    chan struct{} // closed when the package databases were read, or could not be
	loadError atomic.Pointer[error]

	mu      sync.Mutex
	session *sdk.Session
	fields  map[string]string // the operator's settings
	seen    fileState         // the policy file that was read last
}

// New returns a product that is ready to be asked; its package databases are read by Run.
func New(cfg Config) (*Decider, error) {
	if cfg.PolicyFile == "" {
		cfg.PolicyFile = "policy.toml"
	}
	if cfg.Poll == 0 {
		cfg.Poll = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	db, err := packagedb.New(packagedb.Config{Root: cfg.Root, Interval: cfg.Poll, Settle: cfg.Settle, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("open package database: %w", err)
	}
	digests, err := digest.New(cfg.Digests)
	if err != nil {
		return nil, err
	}
	return &Decider{cfg: cfg, db: db, digests: digests, maxWait: defaultMaxExtend, loaded: make(chan struct{})}, nil
}

// defaultMaxExtend is the longest time a question is asked to wait for a large file.
const defaultMaxExtend = 3 * time.Second

// Product describes the product to the SDK. questions is what to ask for: exec, or exec and open.
func (d *Decider) Product(questions ...sdk.Kind) sdk.Product {
	for _, k := range questions {
		d.opens = d.opens || k == sdk.Open
	}
	return sdk.Product{Name: "allowlist", Questions: questions, OnReady: d.ready, OnQuestion: d.answer}
}

// ready reads the settings and the policy. A policy with a fault, and none that was good before, ends the product: the
// agent then says so, and its on_miss counts.
func (d *Decider) ready(s *sdk.Session) error {
	settings := s.Settings()
	if text := settings["max_extend"]; text != "" {
		wait, err := time.ParseDuration(text)
		if err != nil || wait < 0 {
			return fmt.Errorf("setting max_extend %q: must be a duration like 3s", text)
		}
		d.maxWait = wait
	}
	d.mu.Lock()
	d.session, d.fields = s, settings
	d.mu.Unlock()
	d.reports.session.Store(s)
	return d.firstPolicy()
}

// answer is OnQuestion.
func (d *Decider) answer(ctx context.Context, q *sdk.Question) sdk.Answer {
	p := d.policy.Load()
	path := q.GetFile().GetPath()
	f := &facts{d: d, ctx: ctx, q: q}
	defer f.done()
	if q.GetKind() == sdk.Open {
		if runnable, err := f.runnable(); err == nil && !runnable {
			return sdk.Allow.CacheFile()
		}
	}
	subject := policy.Subject{Path: path, NoUID: q.GetProcess().GetCredentials() == nil, UID: q.GetProcess().GetCredentials().GetUid()}
	v, err := p.Decide(subject, f)
	if err != nil {
		return d.undecided(q, p, err)
	}
	if v.Allow {
		if f.mismatch != "" {
			d.reports.mismatch(q, f)
		}
		if v.FileOnly && f.stable() {
			return sdk.Allow.CacheFile()
		}
		return sdk.Allow
	}
	if p.ModeOf(path) == policy.Lockdown {
		d.reports.refused(q, f, v, true)
		return sdk.Deny
	}
	d.reports.refused(q, f, v, false)
	return sdk.Allow
}

// undecided answers what could not be found out in time.
func (d *Decider) undecided(q *sdk.Question, p *policy.Policy, err error) sdk.Answer {
	if errors.Is(err, sdk.ErrWithdrawn) || errors.Is(err, context.Canceled) {
		return sdk.Allow // nobody waits for it
	}
	deny := p.OnTimeout == policy.Deny && p.ModeOf(q.GetFile().GetPath()) == policy.Lockdown
	d.reports.undecided(q, err, deny)
	if deny {
		return sdk.Deny
	}
	return sdk.Allow
}
