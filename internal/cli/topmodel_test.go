package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	controlv1 "bailey/api/control/v1"
	productv1 "bailey/api/product/v1"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
)

func testModel() *topModel {
	return newTopModel(&app{Process: Process{Getenv: func(string) string { return "" }}, run: "/run/x"}, time.Second)
}

// agentStatus is an agent that was asked n questions and answered all within less than 2^bucket µs.
func agentStatus(pid uint32, n uint64, bucket int) *controlv1.StatusResponse {
	buckets := make([]uint64, 26)
	buckets[bucket] = n
	product := func(name string, factor uint64) *controlv1.Product {
		return &controlv1.Product{Name: name, Pid: 7, State: "running", Authority: "live", Restarts: 1, Counters: &controlv1.ProductCounters{
			Questions: n * factor, Answers: n, Denies: 3, Misses: 2, LatencyBuckets: buckets, Queued: 4, Lost: 5, Memory: 9 << 20 / factor, Cpu: n * 5e6,
		}}
	}
	return &controlv1.StatusResponse{
		Version: "1.2.3", Pid: pid, Started: uint64(pid), Uptime: 90e9,
		Questions: &controlv1.Questions{Asked: n, Allowed: n, InFlight: 2}, Cache: &controlv1.Cache{Hits: n / 2, Entries: 8},
		Products: []*controlv1.Product{product("allowlist", 1), product("clamav", 2)},
		Sensors:  []*controlv1.Sensor{{Name: "process", Counters: map[string]uint64{"lost.execs": 3, "execs": 100}}, {Name: "log", Counters: map[string]uint64{"dropped": 1}}},
		Health:   []*controlv1.HealthEntry{{Component: "a", Status: "degraded"}, {Component: "b", Status: "ok"}},
		Journal:  &controlv1.Journal{Lost: 6},
	}
}

func at(seconds int, s *controlv1.StatusResponse) topStatus {
	return topStatus{status: s, at: time.Unix(int64(seconds), 0)}
}

func press(t *testing.T, m *topModel, key rune) tea.Cmd {
	t.Helper()
	_, cmd := m.Update(tea.KeyPressMsg(tea.Key{Code: key, Text: string(key)}))
	return cmd
}

func mustShow(t *testing.T, m *topModel, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if got := m.picture(); !strings.Contains(got, want) {
			t.Errorf("the picture lacks %q:\n%s", want, got)
		}
	}
}

func TestTopShowsTheLastInterval(t *testing.T) {
	t.Parallel()
	m := testModel()
	mustShow(t, m, "looking for the agent")
	m.Update(at(10, agentStatus(1, 1000, 20)))
	mustShow(t, m, "questions 0.0/s", "bailey 1.2.3  up 1m30s  health degraded (1 entry")
	next := agentStatus(1, 1400, 20)
	for _, p := range next.GetProducts() { // the new ones were fast
		p.Counters.LatencyBuckets[20], p.Counters.LatencyBuckets[6] = 1000, 400
	}
	_, cmd := m.Update(at(12, next))
	if cmd == nil {
		t.Error("it does not look again")
	}
	mustShow(t, m, "questions 200.0/s  p50 64µs  p99 64µs  cache hits 100.0/s  waiting 2  lost 20",
		"PRODUCT    AUTHORITY  STATE    Q/S    ANSWERS  DENIES  MISSES  P50   P99   QUEUE       RESTARTS  MEMORY   CPU",
		"allowlist  live       running  200.0  1400     3       2       64µs  64µs  4 (5 lost)  1         9.0 MiB  100 %",
		"clamav     live       running  400.0  1400     3       2       64µs  64µs  4 (5 lost)  1         4.5 MiB  100 %",
		"none yet")
}

// TestTopOutlivesTheAgent: it says that the agent is away, keeps the last picture, and does not take another agent's counts for
// the old one's.
func TestTopOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	m := testModel()
	gone := topStatus{err: connect.NewError(connect.CodeUnavailable, errors.New("the agent is stopping"))}
	m.Update(gone)
	mustShow(t, m, "the agent is away, trying again: the agent is stopping")
	m.Update(at(1, agentStatus(1, 1000, 3)))
	m.Update(at(2, agentStatus(1, 2000, 3)))
	if _, cmd := m.Update(gone); cmd == nil {
		t.Error("it does not look again")
	}
	mustShow(t, m, "the agent is away, trying again", "allowlist", "questions 1000.0/s")
	m.Update(at(9, agentStatus(2, 10, 3)))
	mustShow(t, m, "questions 0.0/s", "up 1m30s")
	if strings.Contains(m.picture(), "away") {
		t.Error("it is still said to be away")
	}
}

func TestTopKeys(t *testing.T) {
	t.Parallel()
	m := testModel()
	m.Update(tea.WindowSizeMsg{Width: 200, Height: 30})
	m.Update(at(1, agentStatus(1, 10, 3)))
	m.Update(at(2, agentStatus(1, 20, 3)))
	mustShow(t, m, "sort by: name")
	names := func() (out []string) {
		for _, p := range m.rates.products {
			out = append(out, p.GetName())
		}
		return out
	}
	press(t, m, 's')
	mustShow(t, m, "sort by: questions")
	if diff := cmp.Diff([]string{"clamav", "allowlist"}, names()); diff != "" {
		t.Errorf("by questions (-want +got):\n%s", diff)
	}
	for range len(topSorts) - 1 {
		press(t, m, 's')
	}
	if diff := cmp.Diff([]string{"allowlist", "clamav"}, names()); diff != "" {
		t.Errorf("by name again (-want +got):\n%s", diff)
	}
	press(t, m, 'p')
	m.Update(at(3, agentStatus(1, 1000, 3)))
	mustShow(t, m, "paused", "questions 10.0/s")
	press(t, m, 'p')
	m.Update(at(4, agentStatus(1, 1020, 3)))
	mustShow(t, m, "questions 500.0/s")
	press(t, m, '?')
	mustShow(t, m, "quit", "questions a second")
	if press(t, m, '?'); strings.Contains(m.picture(), "this help") {
		t.Error("the help stays")
	}
	for _, k := range []tea.Key{{Code: 'q', Text: "q"}, {Code: 'c', Mod: tea.ModCtrl}} {
		_, cmd := m.Update(tea.KeyPressMsg(k))
		if cmd == nil {
			t.Fatalf("%v does not quit", k)
		}
		if _, quits := cmd().(tea.QuitMsg); !quits {
			t.Errorf("%v does not quit", k)
		}
	}
}

// finding is one whose text would write to the terminal.
func finding(i int) topEvent {
	return topEvent{event: &productv1.Event{Kind: productv1.Kind_finding, Finding: &productv1.Finding{
		Product: "allowlist", Title: fmt.Sprintf("number %d\x1b[2J", i), Severity: productv1.Severity_high,
	}}}
}

func TestTopRemembersTheLatest(t *testing.T) {
	t.Parallel()
	m := testModel()
	m.Update(at(1, agentStatus(1, 10, 3)))
	for i := range 3 * maxRecent {
		m.Update(finding(i))
	}
	m.Update(topEvent{event: finding(0).event, lost: 12})
	if len(m.recent) != maxRecent || !strings.Contains(m.recent[1], fmt.Sprintf("number %d", 3*maxRecent-1)) {
		t.Errorf("%d are remembered, the latest but one is %q", len(m.recent), m.recent[1])
	}
	mustShow(t, m, "12 of them were dropped here")
	if strings.Contains(m.picture(), "\x1b") {
		t.Error("a finding's text reaches the terminal as it is")
	}
}

// TestTopFitsTheTerminal at every size, wide characters included.
func TestTopFitsTheTerminal(t *testing.T) {
	t.Parallel()
	m := testModel()
	s := agentStatus(1, 10, 3)
	s.Products[0].Name = "漢字漢字漢字"
	m.Update(at(1, s))
	for i := range 50 {
		m.Update(finding(i))
	}
	for _, help := range []bool{false, true} {
		m.help = help
		for width := 1; width < 220; width += 7 {
			for _, height := range []int{1, 2, 3, 10, 80} {
				m.Update(tea.WindowSizeMsg{Width: width, Height: height})
				lines := strings.Split(m.View().Content, "\n")
				if len(lines) != height {
					t.Fatalf("%d lines on a terminal of %d", len(lines), height)
				}
				for _, l := range lines {
					if w := lipgloss.Width(l); w > width {
						t.Fatalf("a line of %d on a terminal of %d: %q", w, width, l)
					}
				}
			}
		}
	}
}
