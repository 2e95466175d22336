package file

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/internal/roottest"
)

// BenchmarkQuestion compares, in one run, what an open+close and an exec of a small static program cost: without a mark, asked
// and answered inline, asked by a sensor that must load the process, and cached. It prints medians and ratios to unmarked.
func BenchmarkQuestion(b *testing.B) {
	roottest.Require(b, "fanotify permission marks need CAP_SYS_ADMIN")
	r := newRig(b, "")
	plain := scratch(b)
	open, bin := r.file("f"), r.binary("tool")
	for _, f := range []string{"f", "tool"} {
		data, err := os.ReadFile(r.dir + "/" + f)
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(plain+"/"+f, data, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	r.s.SetOpenScope([]string{"/"})
	r.s.SetQuestions(true, true)
	sub := startSubject(b)
	r.procs.get(sub.pid())

	variants := []struct {
		name       string
		open, exec string
		prepare    func()
	}{
		{"unmarked", plain + "/f", plain + "/tool", func() {}},
		{"exempt", open, bin, func() { r.exempt.Store(sub.pid()) }},
		{"inline", open, bin, func() { r.answer(allow) }},
		{"cached", open, bin, func() { r.answer(allowCached); r.cached(sub, open); sub.do("exec", bin) }},
	}
	const opens, execs, rounds = 2000, 100, 9
	took := make(map[string][]time.Duration)
	for b.Loop() {
		for range rounds {
			for _, v := range variants {
				r.exempt.Store(0)
				if err := r.s.FlushCache(); err != nil {
					b.Fatal(err)
				}
				v.prepare()
				took[v.name+"/open"] = append(took[v.name+"/open"], sub.do("openmany", v.open, fmt.Sprint(opens))/opens)
				took[v.name+"/exec"] = append(took[v.name+"/exec"], sub.do("execmany", v.exec, fmt.Sprint(execs))/execs)
			}
		}
	}
	for _, what := range []string{"open", "exec"} {
		base := median(took["unmarked/"+what])
		for _, v := range variants {
			m := median(took[v.name+"/"+what])
			b.ReportMetric(float64(m.Nanoseconds())/1000, v.name+"_"+what+"_µs")
			b.ReportMetric(float64(m)/float64(base), v.name+"_"+what+"_ratio")
		}
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// The reader allocates nothing for a question about a file that it knows.
func TestReaderDoesNotAllocate(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	path := r.file("f")
	r.answer(allow)
	sub := startSubject(t)
	sub.do("open", path)
	before := mallocs()
	sub.do("openmany", path, "20000")
	n := mallocs() - before
	if r.asked(event.Open) < 20000 {
		t.Fatal("not asked")
	}
	// The rest of the test binary allocates too: a few for the subject's command, and the mark manager's scans.
	t.Logf("%d allocations over 20,000 questions", n)
	if n > 2000 {
		t.Errorf("%d allocations over 20,000 questions", n)
	}
}
