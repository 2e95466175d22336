package incident

import (
	"fmt"
	"strings"
	"time"
)

// denial is something that a product may deny: a program that is run, or a file that is opened.
type denial struct {
	path string
	exec bool
}

func (d denial) try() error {
	if d.exec {
		return execs(d.path)
	}
	return opens(d.path)
}

// brakes tries everything again and again until nothing is refused any more, which must come in time and before more than
// limit files were refused; then the operator has been told, and one command gives the product its right back.
func (r *replay) brakes(list []denial, limit int) {
	r.t.Helper()
	denied, refusals := map[string]bool{}, 0
	end := time.Now().Add(brakeWithin)
	for round := 1; ; round++ {
		again := 0
		for _, d := range list {
			switch err := d.try(); {
			case refused(err):
				denied[d.path] = true
				again++
			case err != nil:
				r.errorf("%s: %v", d.path, err)
			}
		}
		refusals += again
		if again == 0 {
			break
		}
		if time.Now().After(end) {
			r.errorf("after %s and %d rounds %d of %d files are refused: the product has not lost the right to deny", brakeWithin, round, again, len(list))
			return
		}
	}
	r.t.Logf("%s: %d files refused, %d refusals", r.row.ID, len(denied), refusals)
	if len(denied) == 0 {
		r.errorf("nothing was refused: nothing is proven")
	}
	if len(denied) > limit {
		r.errorf("%d files were refused before the brake, at most %d", len(denied), limit)
	}
	r.operatorIsTold()
}

// operatorIsTold checks that a braked product is on record with the command that releases it.
func (r *replay) operatorIsTold() {
	r.t.Helper()
	for _, h := range r.Status().GetHealth() {
		if h.GetStatus() != "ok" && strings.Contains(h.GetComponent(), r.name) && strings.Contains(h.GetRemedy(), "brake release") {
			return
		}
	}
	r.errorf("no health entry of %s names `bailey brake release`: %v", r.name, r.Status().GetHealth())
}

// releases gives the product its right back: it refuses again.
func (r *replay) releases(d denial) {
	r.t.Helper()
	r.Must("brake", "release", r.name)
	r.until("it may deny again", 5*time.Second, func() error {
		if err := d.try(); !refused(err) {
			return fmt.Errorf("%s: %w", d.path, err)
		}
		return nil
	})
}

// programs and files put n of them below a directory of the scratch filesystem.
func (r *replay) programs(dir string, n int) []denial {
	var out []denial
	for i := range n {
		out = append(out, denial{path: r.Program(fmt.Sprintf("%s/p%d", dir, i)), exec: true})
	}
	return out
}

func (r *replay) files(dir, pattern, text string, n int) []denial {
	var out []denial
	for i := range n {
		out = append(out, denial{path: r.Agent.File(fmt.Sprintf("%s/"+pattern, dir, i), text, 0o644)})
	}
	return out
}
