package scan

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bailey/internal/leakcheck"
	"bailey/internal/roottest"
	"bailey/products/clamav/clamdtest"
	"bailey/sdk"
	"bailey/sdk/sdktest"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// bench is the product with a real clamd.
type bench struct {
	*sdktest.Agent
	p     *Product
	clamd *clamdtest.Server
}

// newBench starts clamd, unless it is to be away, and the product.
func newBench(t *testing.T, up bool, settings map[string]string) *bench {
	t.Helper()
	if !clamdtest.Available() {
		roottest.Unavailable(t, "needs clamd (Debian: clamav-daemon)")
	}
	b := &bench{clamd: clamdtest.Prepare(t)}
	if up {
		b.clamd.Up()
	}
	all := map[string]string{"socket": b.clamd.Socket, "database": b.clamd.Database, "poll": "20ms"}
	for k, v := range settings {
		all[k] = v
	}
	var err error
	if b.p, err = New(Config{Questions: []sdk.Kind{sdk.Exec, sdk.Open}}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- b.p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	b.Agent = sdktest.NewWith(t, b.p.SDK(ctx), sdktest.Options{Settings: all})
	<-b.p.ready
	return b
}

func file(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// starved is how late a process may get the processor on a machine that others use too. A product that waits for clamd is
// late by more.
const starved = 500 * time.Millisecond

// ask asks and demands the answer within the deadline.
func (b *bench) ask(t *testing.T, path string, deadline time.Duration) sdk.Answer {
	t.Helper()
	start := time.Now()
	got := b.AskQuestion(sdktest.Question{Kind: sdk.Open, Path: path, Deadline: deadline})
	if took := time.Since(start); took > deadline+starved {
		t.Errorf("the answer took %v of %v", took, deadline)
	}
	return got
}

func (b *bench) eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !done() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("waited in vain for: %s; findings %+v", what, b.Findings())
		}
	}
}

// found returns the first finding of a rule, nil if there is none.
func (b *bench) found(rule string) *sdk.Finding {
	for _, f := range b.Findings() {
		if f.Rule == rule {
			return &f
		}
	}
	return nil
}

const patient = 5 * time.Second

func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		settings map[string]string
		content  []byte
		want     sdk.Answer
		rule     string
		action   string
	}{
		"clean":           {nil, []byte("clean"), sdk.Allow.CacheFile(), "", ""},
		"empty":           {nil, nil, sdk.Allow.CacheFile(), "", ""},
		"eicar":           {nil, clamdtest.EicarContent(), sdk.Deny, clamdtest.Eicar, sdk.Denied},
		"marker":          {nil, clamdtest.MarkerContent(), sdk.Deny, clamdtest.Marker, sdk.Denied},
		"marker_streamed": {map[string]string{"transfer": "instream"}, clamdtest.MarkerContent(), sdk.Deny, clamdtest.Marker, sdk.Denied},
		"monitor":         {map[string]string{"mode": "monitor"}, clamdtest.EicarContent(), sdk.Allow, clamdtest.Eicar, sdk.WouldDeny},
		"large_allowed":   {map[string]string{"max_size": "10"}, clamdtest.EicarContent(), sdk.Allow, ruleLarge, sdk.Detected},
		"large_denied":    {map[string]string{"max_size": "10", "on_large": "deny"}, clamdtest.EicarContent(), sdk.Deny, ruleLarge, sdk.Denied},
		"stream_limit":    {map[string]string{"transfer": "instream", "on_large": "deny"}, bytes.Repeat([]byte("x"), 5<<20), sdk.Deny, ruleLarge, sdk.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, true, test.settings)
			path := file(t, test.content)
			if got := b.ask(t, path, patient); got != test.want {
				t.Errorf("answer %v, want %v; findings %+v", got, test.want, b.Findings())
			}
			if test.rule == "" {
				if f := b.Findings(); len(f) > 0 {
					t.Errorf("findings %+v", f)
				}
				return
			}
			f := b.found(test.rule)
			if f == nil || f.Action != test.action || f.File.GetPath() != path || f.QuestionID == 0 {
				t.Fatalf("findings %+v", b.Findings())
			}
			if test.rule == clamdtest.Eicar && f.Fields["signature"] != clamdtest.Eicar {
				t.Errorf("the finding does not name the signature: %+v", f)
			}
		})
	}
}

// TestAway: without clamd every question is answered at once by on_error; when clamd comes, scanning begins by itself.
func TestAway(t *testing.T) {
	t.Parallel()
	b := newBench(t, false, nil)
	path := file(t, clamdtest.EicarContent())
	if got := b.ask(t, path, 500*time.Millisecond); got != sdk.Allow {
		t.Errorf("without clamd: %v", got)
	}
	b.eventually(t, "the finding that clamd is away", func() bool { return b.found(ruleAway) != nil && b.found(ruleUnscanned) != nil })
	b.clamd.Up()
	b.eventually(t, "the finding that clamd is back", func() bool { return b.found(ruleBack) != nil })
	if f := b.found(ruleBack); !strings.Contains(f.Title, "without a scan meanwhile") {
		t.Errorf("the finding does not count what was not scanned: %s", f.Title)
	}
	if got := b.ask(t, path, patient); got != sdk.Deny {
		t.Errorf("with clamd: %v", got)
	}
	strict := newBench(t, false, map[string]string{"on_error": "deny"})
	if got := strict.ask(t, path, 500*time.Millisecond); got != sdk.Deny {
		t.Errorf("on_error = deny: %v", got)
	}
}

// TestFirstMissesCount: what was not scanned before the watcher knew why counts, too.
func TestFirstMissesCount(t *testing.T) {
	t.Parallel()
	b := newBench(t, true, map[string]string{"poll": "1h"})
	b.p.unscanned.Add(1)
	b.p.changed(ruleAway, "away", sdk.High, false)
	b.p.changed(ruleBack, "back", sdk.Info, false)
	b.eventually(t, "the finding that clamd is back", func() bool { return b.found(ruleBack) != nil })
	if f := b.found(ruleBack); !strings.Contains(f.Title, "1 questions were answered without a scan meanwhile") {
		t.Errorf("the finding does not count what was not scanned: %s", f.Title)
	}
}

// TestStopped stops clamd with questions in flight: each is answered in time, later ones at once, and all is well after.
func TestStopped(t *testing.T) {
	t.Parallel()
	b := newBench(t, true, nil)
	if got := b.ask(t, file(t, []byte("warm")), patient); got != sdk.Allow.CacheFile() {
		t.Fatalf("before: %v", got)
	}
	b.clamd.Signal(unix.SIGSTOP)
	var asking sync.WaitGroup
	for i := range 20 {
		path := file(t, append([]byte{byte(i)}, clamdtest.MarkerContent()...))
		asking.Go(func() {
			if got := b.ask(t, path, 500*time.Millisecond); got != sdk.Allow {
				t.Errorf("while clamd is stopped: %v", got)
			}
		})
	}
	asking.Wait()
	b.eventually(t, "the finding that clamd is away", func() bool { return b.found(ruleAway) != nil })
	if got := b.ask(t, file(t, []byte("at once")), 200*time.Millisecond); got != sdk.Allow {
		t.Errorf("known to be away: %v", got)
	}
	b.clamd.Signal(unix.SIGCONT)
	b.eventually(t, "the finding that clamd is back", func() bool { return b.found(ruleBack) != nil })
	if got := b.ask(t, file(t, clamdtest.EicarContent()), patient); got != sdk.Deny {
		t.Errorf("after: %v", got)
	}
}

// TestKilled kills clamd in the middle of questions and starts it again.
func TestKilled(t *testing.T) {
	t.Parallel()
	b := newBench(t, true, nil)
	var asking sync.WaitGroup
	for i := range 30 {
		path := file(t, append(bytes.Repeat([]byte{byte(i)}, 1<<20), clamdtest.MarkerContent()...))
		asking.Go(func() { b.ask(t, path, time.Second) })
		if i == 10 {
			b.clamd.Down()
		}
	}
	asking.Wait()
	b.eventually(t, "the finding that clamd is away", func() bool { return b.found(ruleAway) != nil })
	before := b.Subscription()
	b.clamd.Up()
	b.eventually(t, "a new subscription", func() bool { return b.found(ruleBack) != nil && b.Subscription() != before })
	if got := b.ask(t, file(t, clamdtest.EicarContent()), patient); got != sdk.Deny {
		t.Errorf("after: %v", got)
	}
}

// TestNewSignatures: a file that was clean and cached is asked about again, and not called cacheable while clamd may
// still have the old signatures.
func TestNewSignatures(t *testing.T) {
	t.Parallel()
	b := newBench(t, true, map[string]string{"database_settle": "1h"})
	path := file(t, clamdtest.LaterContent())
	if got := b.ask(t, path, patient); got != sdk.Allow.CacheFile() {
		t.Fatalf("before: %v", got)
	}
	b.eventually(t, "the first look at clamd", func() bool { return b.Subscription() != nil })
	before := b.Subscription()
	b.clamd.AddSignature()
	b.eventually(t, "a new subscription", func() bool { return b.Subscription() != before })
	if f := b.found(ruleSignatures); f == nil {
		t.Errorf("no finding tells of new signatures: %+v", b.Findings())
	}
	if got := b.ask(t, path, patient); got != sdk.Deny {
		t.Errorf("after: %v", got)
	}
	if got := b.ask(t, file(t, []byte("clean")), patient); got != sdk.Allow {
		t.Errorf("a clean file while the signatures settle: %v", got)
	}
}

// TestLateScan: a scan that does not fit is finished in the background, and the next question has its result.
func TestLateScan(t *testing.T) {
	t.Parallel()
	b := newBench(t, true, map[string]string{"max_extend": "0s"})
	path := file(t, clamdtest.MarkerContent())
	b.eventually(t, "a watched clamd", func() bool { return !b.p.watch.away() })
	b.clamd.Signal(unix.SIGSTOP)
	if got := b.ask(t, path, 500*time.Millisecond); got != sdk.Allow {
		t.Errorf("in no time: %v", got)
	}
	b.clamd.Signal(unix.SIGCONT)
	b.eventually(t, "the result", func() bool {
		b.p.scanner.mu.Lock()
		defer b.p.scanner.mu.Unlock()
		return len(b.p.scanner.results) > 0
	})
	scans := b.p.scanner.scans.Load()
	if got := b.ask(t, path, patient); got != sdk.Deny {
		t.Errorf("the second time: %v", got)
	}
	if now := b.p.scanner.scans.Load(); now != scans {
		t.Errorf("the file was scanned again")
	}
}

// TestEqualQuestionsShareAScan asks the same many times at once.
func TestEqualQuestionsShareAScan(t *testing.T) {
	t.Parallel()
	b := newBench(t, true, nil)
	path := file(t, bytes.Repeat([]byte("z"), 2<<20))
	var asking sync.WaitGroup
	for range 20 {
		asking.Go(func() {
			if got := b.ask(t, path, patient); got != sdk.Allow.CacheFile() {
				t.Errorf("answer %v", got)
			}
		})
	}
	asking.Wait()
	if n := b.p.scanner.scans.Load(); n != 1 {
		t.Errorf("%d scans of one file", n)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	if s, err := ParseSettings(nil); err != nil || s.Socket != "/run/clamav/clamd.ctl" || !s.Deny || s.OnError {
		t.Errorf("defaults: %+v, %v", s, err)
	}
	for key, value := range map[string]string{"mode": "off", "on_error": "x", "max_size": "-1", "scans": "0", "scan_timeout": "5", "poll": "0s"} {
		if _, err := ParseSettings(map[string]string{key: value}); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s = %q: %v", key, value, err)
		}
	}
}
