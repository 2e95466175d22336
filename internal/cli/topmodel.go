package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// topModel is the state of the live view. It is changed by messages alone, all on one goroutine.
type topModel struct {
	app      *app
	ctx      context.Context // of the looks at the agent
	interval time.Duration

	before, now *topStatus // the last two looks that the agent answered
	away        error      // why the last one was not
	rates       topRates
	recent      []string // denies and findings, the latest first
	missed      uint64   // of them, dropped because this program was too slow
	line        *eventLine

	paused, help  bool
	sort          int
	width, height int // 0: not a terminal
}

// maxRecent bounds the denies and findings that are remembered.
const maxRecent = 200

// topSorts are the columns that products can be sorted by, the largest first but for names.
var topSorts = []struct {
	name string
	less func(a, b topProduct) bool
}{
	{"name", func(a, b topProduct) bool { return a.GetName() < b.GetName() }},
	{"questions", func(a, b topProduct) bool { return a.questions > b.questions }},
	{"p99", func(a, b topProduct) bool { return a.p99 > b.p99 }},
	{"denies", func(a, b topProduct) bool { return a.denies > b.denies }},
	{"misses", func(a, b topProduct) bool { return a.GetCounters().GetMisses() > b.GetCounters().GetMisses() }},
	{"memory", func(a, b topProduct) bool { return a.GetCounters().GetMemory() > b.GetCounters().GetMemory() }},
	{"cpu", func(a, b topProduct) bool { return a.cpu > b.cpu }},
}

func newTopModel(a *app, interval time.Duration) *topModel {
	return &topModel{app: a, ctx: context.Background(), interval: interval, line: newEventLine(a.paint(), false)}
}

var _ tea.Model = (*topModel)(nil)

// topAgain says that it is time to look again.
type topAgain struct{}

// Init looks for the first time.
func (m *topModel) Init() tea.Cmd { return m.look }

func (m *topModel) look() tea.Msg { return m.app.look(m.ctx) }

// Update takes one message.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.KeyPressMsg:
		return m, m.key(msg.String())
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case topAgain:
		return m, m.look
	case topStatus:
		m.took(msg)
		return m, tea.Tick(m.interval, func(time.Time) tea.Msg { return topAgain{} })
	case topEvent:
		m.heard(msg)
	}
	return m, nil
}

func (m *topModel) key(key string) tea.Cmd {
	switch key {
	case "q", "ctrl+c", "esc":
		if m.help {
			m.help = false
			if key == "esc" {
				return nil
			}
		}
		return tea.Quit
	case "p", "space":
		m.paused = !m.paused
	case "s":
		m.sort = (m.sort + 1) % len(topSorts)
		m.order()
	case "?", "h":
		m.help = !m.help
	}
	return nil
}

// took takes a look at the agent, unless the picture is paused. That the agent is away is shown all the same.
func (m *topModel) took(s topStatus) {
	if m.away = s.err; s.err != nil || m.paused {
		return
	}
	m.before, m.now = m.now, &s
	m.rates = ratesOf(m.before, m.now)
	m.order()
}

// order sorts the products; equal ones by name.
func (m *topModel) order() {
	by := topSorts[m.sort].less
	slices.SortFunc(m.rates.products, func(a, b topProduct) int {
		switch {
		case by(a, b):
			return -1
		case by(b, a):
			return 1
		}
		return strings.Compare(a.GetName(), b.GetName())
	})
}

// heard takes a deny or a finding.
func (m *topModel) heard(e topEvent) {
	m.missed += e.lost
	if m.paused {
		return
	}
	m.recent = append([]string{strings.TrimRight(string(m.line.format(e.event, nil)), "\n")}, m.recent[:min(len(m.recent), maxRecent-1)]...)
}
