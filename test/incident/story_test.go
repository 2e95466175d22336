package incident

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bailey/test/rig"
)

// story is one replay: an incident, or one variant of it.
type story struct {
	ID   string // of the incident, with its variant
	Name string // what broke, and when
	Did  string // what the product does here
	Must string // the guarantees that it is about
	Long bool   // takes too long for `go test`: `make incidents` runs it

	Cap     time.Duration // how long a product can extend a question to here; 0: not at all
	Refuses bool          // the product may deny canaries for a while
	Loses   bool          // the load is more than any reader keeps up with
	Dies    bool          // the agent itself is killed or stopped: what it had read and not passed on is lost, and announced
	Waits   time.Duration // how long the kernel itself makes everybody wait here, beyond the deadlines
	Ends    int           // how often the healthy product itself is ended, each time with what it may be being asked
}

// row is what came of a replay.
type row struct {
	story
	felt   felt
	way    *way // of a delivery
	left   []string
	failed bool
	took   time.Duration
}

// built is where the programs are.
var built string

// rows collects what the replays of this run found.
var rows struct {
	sync.Mutex
	all []row
}

// resultFile names the file that the table goes to; it is set by `make incidents`, which also runs the long replays.
func resultFile() string { return os.Getenv("BAILEY_INCIDENTS") }

func TestMain(m *testing.M) {
	if role := os.Getenv(canaryRole); role != "" {
		os.Exit(canaryMain(role, os.Getenv(canaryPath)))
	}
	rig.Main(suite{m}, &built, "bailey", "faulty", "allowlist", "probe")
}

// suite runs the tests and then writes the table, if it is asked to.
type suite struct{ tests *testing.M }

func (s suite) Run() int {
	code := s.tests.Run()
	if resultFile() == "" {
		return code
	}
	rows.Lock()
	defer rows.Unlock()
	slices.SortStableFunc(rows.all, func(a, b row) int { return strings.Compare(a.sortKey(), b.sortKey()) })
	fmt.Print(plainTable(rows.all))
	if err := os.WriteFile(resultFile(), []byte(page(rows.all)), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "incident:", err)
		return 1
	}
	return code
}

// sortKey puts C2 before C10.
func (r row) sortKey() string {
	class, rest, _ := strings.Cut(strings.TrimPrefix(r.ID, "C"), "-")
	return fmt.Sprintf("%3s-%s", class, rest)
}

func (r row) verdict() string {
	if r.failed {
		return "FAILED"
	}
	return "passed"
}

func plainTable(all []row) string {
	var b strings.Builder
	format := "%-8s %-52s %12s %12s %8s %10s  %s\n"
	fmt.Fprintf(&b, format, "incident", "the product", "longest exec", "longest open", "lost", "other p99", "")
	for _, r := range all {
		fmt.Fprintf(&b, format, r.ID, cut(r.Did, 52), ms(r.felt.exec.longest()), ms(r.felt.open.longest()), r.felt.share(), ms(r.felt.other.p99()), r.verdict())
	}
	return b.String()
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n-1] + "…"
	}
	return s
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

// page is docs/incidents.md.
func page(all []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Incidents

This page is written by `+"`make incidents`"+`; a test fails when a replay has no row here, or a row no replay.

Public incidents in which security products broke machines, replayed against Bailey. A product with the incident's fault
([test/faulty](../test/faulty/main.go)) is installed, contained and asked as every product is, beside a healthy one, on a
filesystem of the test's own. [test/incident](../test/incident/doc.go) has a file for each incident, which says what happened
and where it is described. What needs fleets is not replayed; what comes with an update has a [table of its own](#through-the-update-path).

While the fault lasts a canary is executed and a file opened all the time: *longest exec* and *longest open* are the longest that
one took, and in brackets the longest of the same program on a filesystem that nobody watches. Both include fork and wait on
a machine that does other things too. *Lost* is the share of its events that the healthy product did not get, and *p99* how
long its answers took. *Left* is what was still there after the product was removed: processes, control groups, mounts.

A replay passes when nobody waited longer than the deadlines (exec %s, open %s, both for an exec, which is opened too; %s for
critical files; the operator's cap where a product extends), the healthy product lost no event and missed no question (but those
that it had when the replay ended it), and what its own file asks for holds. [limits_test.go](../test/incident/limits_test.go) has all numbers, and the slack that a busy machine
gets. Rows with * take longer and are run by `+"`make incidents`"+` only.

| incident | what broke | what the product does | longest exec | longest open | lost | p99 | left | passed |
|---|---|---|--:|--:|--:|--:|---|---|
`, execDeadline, openDeadline, criticalDeadline)
	for _, r := range all {
		if r.way != nil {
			continue
		}
		left := "nothing"
		if len(r.left) > 0 {
			left = strings.Join(r.left, "; ")
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s (%s) | %s | %s | %s | %s | %s |\n", r.marked(), r.Name, r.Did, ms(r.felt.exec.longest()),
			ms(r.felt.control.longest()), ms(r.felt.open.longest()), r.felt.share(), ms(r.felt.other.p99()), left, r.verdict())
	}
	return b.String() + deliveryTable(all)
}

// marked is its ID as the page has it.
func (r row) marked() string {
	if r.Long {
		return r.ID + "\\*"
	}
	return r.ID
}

// TestEveryReplayHasItsRow holds docs/incidents.md against the replays in this folder, each table against those that it is of.
func TestEveryReplayHasItsRow(t *testing.T) {
	if resultFile() != "" {
		t.Skip("its rows are being found out")
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "incidents.md"))
	if err != nil {
		t.Fatal(err)
	}
	first, second, _ := strings.Cut(string(text), "## Through the update path")
	for kind, table := range map[string]string{"story": first, "delivery": second} {
		var rows []string
		for line := range strings.Lines(table) {
			if cells := strings.Split(line, "|"); len(cells) > 8 && strings.HasPrefix(cells[1], " C") {
				rows = append(rows, strings.TrimSuffix(strings.TrimSpace(cells[1]), "\\*"))
			}
		}
		replays := replaysInSource(t, kind)
		for _, id := range replays {
			if !slices.Contains(rows, id) {
				t.Errorf("%s is replayed as a %s and has no row in docs/incidents.md: run `make incidents`", id, kind)
			}
		}
		for _, id := range rows {
			if !slices.Contains(replays, id) {
				t.Errorf("docs/incidents.md has a row %s, which no %s replays: run `make incidents`", id, kind)
			}
		}
	}
}
