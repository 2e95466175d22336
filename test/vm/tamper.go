package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// attackRow is one attack on the guard as agent/guard's TestAttacks reports it: one line of JSON after a prefix.
type attackRow struct {
	Group, Attack, Hook, Outcome, Control, Why string
}

var (
	attackLine = regexp.MustCompile(`(?m)VM-ATTACK (\{.*\})$`)
	attackEnd  = regexp.MustCompile(`(?m)VM-ATTACKS (\d+)$`)
)

// attackRun is all attacks on one kernel.
type attackRun struct {
	version string // "6.1"
	release string
	rows    []attackRow
}

// attackRows returns the attacks of a report, none if not all of them were tried.
func attackRows(report string) ([]attackRow, error) {
	end := attackEnd.FindStringSubmatch(report)
	if end == nil {
		return nil, nil
	}
	var rows []attackRow
	for _, m := range attackLine.FindAllStringSubmatch(report, -1) {
		var r attackRow
		if err := json.Unmarshal([]byte(m[1]), &r); err != nil {
			return nil, fmt.Errorf("read an attack of the report: %w: %s", err, m[1])
		}
		rows = append(rows, r)
	}
	if strconv.Itoa(len(rows)) != end[1] {
		return nil, fmt.Errorf("read the attacks of the report: %d, and the guest tried %s", len(rows), end[1])
	}
	return rows, nil
}

// noteAttacks keeps what a machine found out about the guard, for the page.
func (b *bench) noteAttacks(release, report string) error {
	rows, err := attackRows(report)
	if err != nil || len(rows) == 0 {
		return err
	}
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attacks = append(b.attacks, attackRun{version: major + "." + minor, release: release, rows: rows})
	return nil
}

// writeTamper writes docs/tamper.md of the kernels that this run tried.
func writeTamper(path string, runs []attackRun) error {
	page, err := tamperPage(runs)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.WriteFile(path, []byte(page), 0o644)
}

const tamperHead = `# Tampering

This page is written by ` + "`make vm`" + ` (these machines alone: ` + "`go run ./test/vm -machine attacks-6.1,attacks-6.12 -tamper docs/tamper.md`" + `); tests fail
when the list of attacks or a reason is another than the code's, and when an attack ends otherwise than the code says.

Attacks by root on what the guard ([agent/guard](../agent/guard/README.md)) protects, each by a process of its own in a virtual machine with
Debian's kernel. The effect decides, not what the attacker was told: processes, files, attributes, mounts, control groups, pins and the disk are
compared before and after. *Without* is the same attack without the guard: where it has no effect either, the row proves nothing and does not count.

- *stopped and reported*: no effect, and the agent was told by whom. *Stopped and counted*: no effect, and a counter says that it was tried.
- *undone and reported*: it happened, and the agent put it right.
- *reported*: it takes effect and the agent is told. *Possible*: it takes effect; the reason is in the last column.

`

// tamperPage is docs/tamper.md: the same text for the same outcomes.
func tamperPage(runs []attackRun) (string, error) {
	if len(runs) < 2 {
		return "", fmt.Errorf("all attacks were tried on %d kernels, two are needed", len(runs))
	}
	var b strings.Builder
	b.WriteString(tamperHead + "| kernel | attacks | count | " + strings.Join(outcomeWords, " | ") + " |\n|---|--:|--:|" + strings.Repeat("--:|", len(outcomeWords)) + "\n")
	for _, r := range runs {
		n := map[string]int{}
		for _, row := range r.rows {
			if row.counts() {
				if !slices.Contains(outcomeWords, row.Outcome) {
					return "", fmt.Errorf("what is %q, which became of %s on %s", row.Outcome, row.Attack, r.release)
				}
				n["count"]++
				n[row.Outcome]++
			}
		}
		fmt.Fprintf(&b, "| Linux %s | %d | %d |", r.release, len(r.rows), n["count"])
		for _, word := range outcomeWords {
			fmt.Fprintf(&b, " %d |", n[word])
		}
		b.WriteString("\n")
	}
	for i, row := range runs[0].rows {
		if i == 0 || row.Group != runs[0].rows[i-1].Group {
			fmt.Fprintf(&b, "\n## %s\n\n| attack | refused by |", row.Group)
			for _, r := range runs {
				fmt.Fprintf(&b, " %s |", r.version)
			}
			b.WriteString(" without | why |\n|---|---|" + strings.Repeat("---|", len(runs)) + "---|---|\n")
		}
		var hooks, controls byKernel
		outcomes := ""
		for _, r := range runs {
			if len(r.rows) != len(runs[0].rows) || r.rows[i].Group != row.Group || r.rows[i].Attack != row.Attack {
				return "", errors.New("the kernels were not attacked alike")
			}
			hooks.add(r.version, r.rows[i].Hook)
			controls.add(r.version, r.rows[i].Control)
			outcomes += " " + r.rows[i].Outcome + " |"
		}
		fmt.Fprintf(&b, "| %s | %s |%s %s | %s |\n", row.Attack, hooks, outcomes, controls, row.Why)
	}
	return b.String(), nil
}

// outcomeWords are what the guest's test says of an attack that takes effect without the guard.
var outcomeWords = []string{"stopped and reported", "stopped and counted", "undone and reported", "reported", "possible"}

func (r attackRow) counts() bool { return r.Control == "takes effect" }

// byKernel is one cell of the page: a word if all kernels say the same, otherwise each kernel's.
type byKernel []struct{ version, word string }

func (c *byKernel) add(version, word string) {
	*c = append(*c, struct{ version, word string }{version, word})
}

func (c byKernel) String() string {
	same, each := true, []string(nil)
	for _, k := range c {
		same = same && k.word == c[0].word
		each = append(each, k.word+" ("+k.version+")")
	}
	if same {
		return c[0].word
	}
	return strings.Join(each, ", ")
}
