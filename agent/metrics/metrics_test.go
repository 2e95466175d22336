package metrics

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"bailey/internal/leakcheck"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// source is a snapshot that does not change.
type source Snapshot

func (s *source) Snapshot() Snapshot { return Snapshot(*s) }

type keeper KeeperCounts

func (k keeper) Keeper() KeeperCounts { return KeeperCounts(k) }

type brakes []Brake

func (b brakes) Brakes() []Brake { return b }

// full is an agent with something of everything.
func full() *source {
	return &source{
		Version: "1.2", Revision: "abc", Started: time.Unix(100, 5e8),
		Asked:    map[string]uint64{"exec": 10, "open": 2},
		Verdicts: []Verdict{{"products", true, 7}, {"products", false, 1}, {"cache", true, 4}},
		InFlight: 3,
		Products: []Product{
			{
				Name: "allowlist", Release: "1.0-ab", State: "running", Authority: "degraded", Restarts: 2, Memory: 4096,
				CPU: 1500 * time.Millisecond, Live: 8, Shadow: 1, Outcomes: map[string]uint64{"answered": 6, "missed": 3}, Denies: 1, Late: 2,
				Degradations: 1, Latency: map[string]Latency{"allow": {Below: []uint64{0, 1, 3, 2}, Sum: 25 * time.Microsecond}},
				Events: 9, EventsLost: 4, EventsQueued: 5, QueuedBytes: 600, EventsUnacked: 2, Findings: 3, FindingsLost: 1, Faults: 1,
			},
			{Name: "clamav", State: "stopped", Authority: "off"},
		},
		Cache: Cache{Entries: 5, Hits: 4, Misses: 8, Marks: 2, Cleared: map[string]uint64{"operator": 1}},
		Lost:  []Loss{{"exec_event", "ring", 3}}, Published: 40,
		Files:     Files{Counts: map[string]uint64{"read": 12, "cache.set": 2}, FileSystems: 3, Uncovered: 1, Pending: 3},
		Processes: Processes{Counts: map[string]uint64{"execs": 6}, RingWaiting: 100, RingBytes: 8 << 20},
		Health:    map[string]int{"ok": 5, "degraded": 1, "failed": 0}, Unwell: []Unwell{{"containment.landlock", "degraded"}},
		Journal: Journal{Seq: 12, Lines: 11, SummedUp: 2, Failing: true},
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func scrapeText(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// TestEveryMetricIsSentAndNoneBesides: the table is the page of what there is, and an agent with something of everything fills
// it.
func TestEveryMetricIsSentAndNoneBesides(t *testing.T) {
	t.Parallel()
	m, err := New(Config{Source: full(), Log: quiet(), Keeper: keeper{Bypassed: 2, Restarts: 1, Bypass: true}, Brakes: brakes{{"allowlist", true, 3}, {"clamav", false, 1}}})
	if err != nil {
		t.Fatal(err)
	}
	text := scrapeText(t, m.Handler())
	for _, want := range strings.Split(strings.TrimSpace(`
bailey_build_info{revision="abc",version="1.2"} 1
bailey_start_time_seconds 100.5
bailey_questions_total{kind="exec"} 10
bailey_verdicts_total{reason="products",verdict="deny"} 1
bailey_questions_in_flight 3
bailey_cache_hits_total 4
bailey_cache_kernel_marks 2
bailey_cache_clears_total{cause="operator"} 1
bailey_lost_total{cause="ring",what="exec_event"} 3
bailey_product_authority{authority="degraded",product="allowlist"} 1
bailey_product_authority{authority="live",product="allowlist"} 0
bailey_product_state{product="clamav",state="stopped"} 1
bailey_product_restarts_total{product="allowlist"} 2
bailey_product_degradations_total{product="allowlist"} 1
bailey_product_cpu_seconds_total{product="allowlist"} 1.5
bailey_product_answers_total{outcome="missed",product="allowlist"} 3
bailey_product_answer_seconds_bucket{answer="allow",product="allowlist",le="1e-06"} 0
bailey_product_answer_seconds_bucket{answer="allow",product="allowlist",le="2e-06"} 1
bailey_product_answer_seconds_bucket{answer="allow",product="allowlist",le="4e-06"} 4
bailey_product_answer_seconds_bucket{answer="allow",product="allowlist",le="+Inf"} 6
bailey_product_answer_seconds_count{answer="allow",product="allowlist"} 6
bailey_product_answer_seconds_sum{answer="allow",product="allowlist"} 2.5e-05
bailey_product_events_queued{product="allowlist"} 5
bailey_product_braked{product="allowlist"} 1
bailey_product_braked_denies_total{product="clamav"} 1
bailey_braked_products 1
bailey_keeper_bypassed_questions_total 2
bailey_keeper_bypass 1
bailey_file_sensor_total{count="cache.set"} 2
bailey_process_ring_waiting_bytes 100
bailey_process_ring_size_bytes 8.388608e+06
bailey_health_unwell{component="containment.landlock",status="degraded"} 1
bailey_journal_failing 1
`), "\n") {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("it lacks %s", want)
		}
	}
	sent := map[string]bool{}
	for _, name := range regexp.MustCompile(`(?m)^# TYPE bailey_(\w+) `).FindAllStringSubmatch(text, -1) {
		sent[name[1]] = true
	}
	for _, m := range table {
		if !sent[m.name] {
			t.Errorf("bailey_%s is in the table and not sent", m.name)
		}
	}
	if len(sent) != len(table) || !strings.Contains(text, "go_goroutines") || !strings.Contains(text, "process_open_fds") {
		t.Errorf("%d metrics of ours, want %d, with the runtime's:\n%s", len(sent), len(table), text)
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(Config{Source: full(), Brakes: brakes{{"a", true, 1}}}))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestWithoutAnything: an agent that has just started, with no keeper and no brakes, can be scraped.
func TestWithoutAnything(t *testing.T) {
	t.Parallel()
	m, err := New(Config{Source: &source{}, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	text := scrapeText(t, m.Handler())
	for _, want := range []string{"bailey_braked_products 0\n", "bailey_keeper_bypassed_questions_total 0\n", "bailey_questions_in_flight 0\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %s", want)
		}
	}
}

// TestWhatCannotBeShown: names that are no text, or that come twice, end neither the agent nor the scrape.
func TestWhatCannotBeShown(t *testing.T) {
	t.Parallel()
	s := full()
	s.Products[0].Release = "1.0-\xff\n\""
	s.Unwell = append(s.Unwell, s.Unwell[0])
	m, err := New(Config{Source: s, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	text := scrapeText(t, m.Handler())
	for _, want := range []string{`release="1.0-�\n\""`, "bailey_questions_in_flight 3\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %s", want)
		}
	}
}

func TestScrapesAtOnce(t *testing.T) {
	t.Parallel()
	m, err := New(Config{Source: full(), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			w := httptest.NewRecorder()
			m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			if w.Code != http.StatusOK {
				t.Errorf("status %d", w.Code)
			}
		})
	}
	group.Wait()
}

// TestLoopback serves on a port, waits for one that is taken, and leaves nothing.
func TestLoopback(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := taken.Addr().String()
	m, err := New(Config{Source: full(), Log: quiet(), Listen: address})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var text string
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); text == "" && time.Now().Before(end); <-tick.C {
		r, err := client.Get("http://" + address + "/metrics")
		if err != nil {
			continue
		}
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	if !strings.Contains(text, "bailey_questions_in_flight 3\n") {
		t.Errorf("got %q", text)
	}
	if r, err := client.Post("http://"+address+"/metrics", "", nil); err != nil || r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, %v", r, err)
	} else {
		r.Body.Close()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWithoutLoopback(t *testing.T) {
	t.Parallel()
	m, err := New(Config{Source: full(), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Run(ctx); err != nil {
		t.Error(err)
	}
}
