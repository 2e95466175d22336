package cli

import (
	"fmt"
	"strings"
	"time"

	controlv1 "bailey/api/control/v1"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
)

// View draws the picture on the whole terminal.
func (m *topModel) View() tea.View {
	v := tea.NewView(m.picture())
	v.AltScreen = true
	v.WindowTitle = "bailey top"
	return v
}

// picture is what is to be seen: as wide and high as the terminal, or as it needs where there is none.
func (m *topModel) picture() string {
	if m.help {
		return m.fit(m.helpLines(), nil)
	}
	return m.fit(m.lines(), m.footer())
}

// fit cuts lines to the terminal and puts the footer on its last line.
func (m *topModel) fit(lines, footer []string) string {
	if m.height > 0 {
		if room := max(m.height-len(footer), 0); len(lines) > room {
			lines = lines[:room]
		}
		for len(lines)+len(footer) < m.height {
			lines = append(lines, "")
		}
	}
	lines = append(lines, footer...)
	if m.width > 0 {
		cut := lipgloss.NewStyle().Inline(true).MaxWidth(m.width)
		for i, l := range lines {
			lines[i] = cut.Render(l)
		}
		return strings.Join(lines, "\n")
	}
	return strings.Join(lines, "\n") + "\n"
}

func (m *topModel) helpLines() []string {
	return strings.Split(`
  q        quit
  p        pause the picture, and go on
  s        sort the products by the next column
  ?        this help, and back

  q/s      questions a second that the product was asked, in the last interval
  p50 p99  half, and 99 %, of its answers in the last interval came within
  queue    events that wait for the product
  lost     everything that the agent lost since it started: events, log and journal lines
  denies and misses are since the agent started`, "\n")
}

func (m *topModel) lines() []string {
	if m.now == nil {
		if m.away != nil {
			return []string{m.awayLine()}
		}
		return []string{"looking for the agent …"}
	}
	out := append(m.head(), "")
	out = append(out, m.table()...)
	out = append(out, "", m.app.paint()(bold, "LATEST DENIES AND FINDINGS"))
	if m.missed > 0 {
		out = append(out, fmt.Sprintf("%d of them were dropped here because they came too fast", m.missed))
	}
	if len(m.recent) == 0 {
		out = append(out, "none yet")
	}
	return append(out, m.recent...)
}

func (m *topModel) awayLine() string {
	return m.app.paint()(yellow, "the agent is away, trying again: ") + m.app.awayText(m.away)
}

// head is the agent in three lines.
func (m *topModel) head() []string {
	s, paint := m.now.status, m.app.paint()
	worst, ill := "ok", 0
	for _, h := range s.GetHealth() {
		if h.GetStatus() != "ok" {
			ill++
		}
		if worst != "failed" && h.GetStatus() != "ok" {
			worst = h.GetStatus()
		}
	}
	health := paint(statusColour(worst), worst)
	if ill > 0 {
		health += fmt.Sprintf(" (%s, see `bailey status`)", plural(ill, "entry", "entries"))
	}
	first := fmt.Sprintf("%s  up %s  health %s", paint(bold, "bailey "+plain(s.GetVersion())), span(s.GetUptime()), health)
	switch {
	case m.away != nil:
		first = m.awayLine()
	case m.paused:
		first += "  " + paint(yellow, "paused")
	}
	q := s.GetQuestions()
	return []string{
		first,
		fmt.Sprintf("questions %.1f/s  p50 %s  p99 %s  cache hits %.1f/s  waiting %d  lost %d",
			m.rates.questions, latency(m.rates.p50), latency(m.rates.p99), m.rates.hits, q.GetInFlight(), m.rates.lost),
		fmt.Sprintf("asked %d  allowed %d  denied %d  cached verdicts %d", q.GetAsked(), q.GetAllowed(), q.GetDenied(), s.GetCache().GetEntries()),
	}
}

func latency(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return span(uint64(d))
}

// table lists the products.
func (m *topModel) table() []string {
	if len(m.rates.products) == 0 {
		return []string{"no product is installed"}
	}
	paint := m.app.paint()
	word := func(s string) cell {
		return cell{plain(s), func(s string) string { return paint(statusColour(s), s) }}
	}
	title := func(s string) cell { return cell{s, func(s string) string { return paint(bold, s) }} }
	t := &table{}
	var heads []any
	for _, h := range []string{"PRODUCT", "AUTHORITY", "STATE", "Q/S", "ANSWERS", "DENIES", "MISSES", "P50", "P99", "QUEUE", "RESTARTS", "MEMORY", "CPU"} {
		heads = append(heads, title(h))
	}
	t.row(heads...)
	for _, p := range m.rates.products {
		c := p.GetCounters()
		t.row(plain(p.GetName()), word(p.GetAuthority()), word(p.GetState()), fmt.Sprintf("%.1f", p.questions), c.GetAnswers(), c.GetDenies(), c.GetMisses(),
			latency(p.p50), latency(p.p99), queue(c), p.GetRestarts(), size(c.GetMemory()), fmt.Sprintf("%.0f %%", 100*p.cpu))
	}
	var b strings.Builder
	t.print(&b, "")
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}

func queue(c *controlv1.ProductCounters) string {
	if c.GetLost() > 0 {
		return fmt.Sprintf("%d (%d lost)", c.GetQueued(), c.GetLost())
	}
	return fmt.Sprint(c.GetQueued())
}

// footer names the keys, on a terminal.
func (m *topModel) footer() []string {
	if m.width == 0 {
		return nil
	}
	text := fmt.Sprintf("q quit  p pause  s sort by: %s  ? help", topSorts[m.sort].name)
	return []string{m.app.paint()(faint, text)}
}
