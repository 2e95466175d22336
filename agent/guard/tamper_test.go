package guard

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTamperPageIsOfTheseAttacks holds docs/tamper.md, which a run in virtual machines wrote, against the attacks here.
func TestTamperPageIsOfTheseAttacks(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/tamper.md")
	if err != nil {
		t.Fatal(err)
	}
	var have, want []string
	group := ""
	stopped := map[string]int{} // by kernel
	var kernels []string
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			group = strings.TrimSpace(name)
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if group == "" || len(cells) < 5 || strings.HasPrefix(cells[0], "---") {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		outcomes, control, why := cells[2:len(cells)-2], cells[len(cells)-2], cells[len(cells)-1]
		if cells[0] == "attack" {
			kernels = outcomes
			continue
		}
		have = append(have, group+"/"+cells[0]+": "+why)
		for i, word := range outcomes {
			if word == stoppedReported && control == takesEffect {
				stopped[kernels[i]]++
			}
		}
	}
	groups := groups()
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		for _, a := range groups[name] {
			want = append(want, name+"/"+a.name+": "+a.why())
		}
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("docs/tamper.md is of other attacks (run `make vm`) (-want +got):\n%s", diff)
	}
	if len(kernels) < 2 {
		t.Errorf("docs/tamper.md has the kernels %v, want two", kernels)
	}
	for _, k := range kernels {
		if stopped[k] < stoppedMin {
			t.Errorf("docs/tamper.md says that %d attacks are stopped and reported on %s, want %d", stopped[k], k, stoppedMin)
		}
	}
}

// TestAttacksHaveNames: an attacker is found by its name.
func TestAttacksHaveNames(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, group := range groups() {
		for _, a := range group {
			if a.name == "" || seen[a.name] {
				t.Errorf("the attack %q is there twice or has no name", a.name)
			}
			if a.hook == "" && a.possible == "" && a.control == "" {
				t.Errorf("nothing is to refuse %s, and nothing says why", a.name)
			}
			if strings.Contains(a.why(), "|") {
				t.Errorf("the reason of %s breaks the table", a.name)
			}
			seen[a.name] = true
		}
	}
}
