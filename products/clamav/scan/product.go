package scan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"bailey/products/clamav/clamd"
	"bailey/sdk"
)

// Config of the product itself; what the operator sets comes with the session.
type Config struct {
	Questions []sdk.Kind   // what is asked: exec, open or both
	Log       *slog.Logger // default: discard
}

// Product scans files. Safe for concurrent use once it is ready.
type Product struct {
	cfg      Config
	settings Settings
	session  *sdk.Session
	client   *clamd.Client
	scanner  *scanner
	watch    *watcher
	reports  limiter
	ready    chan struct{} // closed when the fields above are set

	unscanned atomic.Uint64 // questions since clamd was last back, because it could not be reached or did not reply
}

// New returns the product; it starts to work when it is connected.
func New(cfg Config) (*Product, error) {
	if len(cfg.Questions) == 0 {
		return nil, fmt.Errorf("no kind of question to answer")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Product{cfg: cfg, ready: make(chan struct{})}, nil
}

// SDK describes the product to the SDK. Workers wait for clamd, so there are more of them than scans.
func (p *Product) SDK(ctx context.Context) sdk.Product {
	return sdk.Product{
		Name: "clamav", Questions: p.cfg.Questions, OnQuestion: p.answer, Workers: 64,
		OnReady: func(s *sdk.Session) error { return p.start(ctx, s) },
	}
}

func (p *Product) start(ctx context.Context, s *sdk.Session) error {
	settings, err := ParseSettings(s.Settings())
	if err != nil {
		return err
	}
	client, err := clamd.New(clamd.Config{Socket: settings.Socket, Mode: settings.Transfer})
	if err != nil {
		return err
	}
	p.settings, p.session, p.client = settings, s, client
	p.scanner = newScanner(ctx, client, settings)
	p.watch = newWatcher(client, settings)
	close(p.ready)
	return nil
}

// Run watches clamd and its signatures until ctx ends, and then waits for the scans in the background, which ctx ends too.
func (p *Product) Run(ctx context.Context) error {
	select {
	case <-p.ready:
	case <-ctx.Done():
		return nil
	}
	p.watch.run(ctx, p.changed)
	p.scanner.running.Wait()
	return nil
}

var errTime = errors.New("no time left")

// answer is OnQuestion.
func (p *Product) answer(ctx context.Context, q *sdk.Question) sdk.Answer {
	generation, certain := p.watch.generation()
	id, err := identify(q.FD(), generation)
	if err != nil {
		return p.notScanned(q, fmt.Errorf("stat the file: %w", err))
	}
	if id.size == 0 {
		return sdk.Allow.CacheFile()
	}
	if id.size > p.settings.MaxSize {
		return p.tooLarge(q, fmt.Sprintf("it has %d bytes, max_size is %d", id.size, p.settings.MaxSize))
	}
	signature, ok := p.scanner.known(id)
	if !ok {
		signature, err = p.scan(ctx, q, id)
		if errors.Is(err, clamd.ErrTooLarge) {
			return p.tooLarge(q, err.Error())
		}
		if err != nil {
			return p.notScanned(q, err)
		}
	}
	if signature != "" {
		return p.detected(q, signature)
	}
	// Cacheable only under signatures that are still those that clamd scanned with.
	if now, _ := p.watch.generation(); !certain || now != generation {
		return sdk.Allow
	}
	return sdk.Allow.CacheFile()
}

// scan waits for clamd until a little before the deadline; for a large file it asks for more time.
func (p *Product) scan(ctx context.Context, q *sdk.Question, id identity) (string, error) {
	if p.watch.away() {
		return "", errAway
	}
	deadline := q.Deadline()
	if deadline.IsZero() {
		return p.scanner.scan(ctx, q.FD(), id)
	}
	left := time.Until(deadline)
	// 10 MB/s is slow for clamd on plain files and fast on archives; what is not enough goes on in the background.
	if need := 100*time.Millisecond + time.Duration(id.size)*100; need > left && p.settings.Wait > left {
		if more := min(need, p.settings.Wait); q.Extend(more) == nil {
			left = more
		}
	}
	margin := min(max(left/8, 10*time.Millisecond), 50*time.Millisecond)
	ctx, cancel := context.WithTimeoutCause(ctx, max(left-margin, 0), errTime)
	defer cancel()
	signature, err := p.scanner.scan(ctx, q.FD(), id)
	if errors.Is(err, errTime) || errors.Is(err, clamd.ErrUnavailable) {
		p.watch.suspect()
	}
	return signature, err
}

// changed is called by the watcher when clamd came, went or has other signatures.
func (p *Product) changed(rule, title string, severity sdk.Severity, forget bool) {
	if rule == ruleBack {
		if n := p.unscanned.Swap(0); n > 0 {
			title = fmt.Sprintf("%s; %d questions were answered without a scan meanwhile", title, n)
		}
	}
	// Fails when the agent is gone; the SDK meets that too and ends.
	_ = p.session.Report(sdk.Finding{Rule: rule, Title: title, Severity: severity, Action: sdk.Detected})
	if !forget {
		return
	}
	// A new subscription, even an equal one, makes the agent drop the allows that it has cached.
	if err := p.session.Subscribe(sdk.Subscription{Questions: p.cfg.Questions}); err != nil {
		p.cfg.Log.Warn("cached answers not withdrawn", "err", err)
	}
}
