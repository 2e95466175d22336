package rehearsal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bailey/agent/event"
	"bailey/agent/product"
	"bailey/agent/product/grant"
	"bailey/agent/rehearsal/corpus"

	"golang.org/x/sys/unix"
)

// wanting is a rehearsal whose release wants everything and may be asked about opens below scope.
func wanting(scope ...string) *rehearsal {
	r := &rehearsal{peer: newPeer(nil), cfg: Config{Asker: &event.Process{Key: event.ProcessKey{PID: 1, Start: 1}}, IsCritical: func(*event.File) bool { return false }}}
	r.peer.events, r.peer.questions, r.peer.scope = event.KindsOf(event.Exec, event.Exit), event.KindsOf(event.Exec, event.Open), scope
	return r
}

// TestTheCorpusIsAskedAboutHere: what this machine has of it, each file once, by processes that there are none of; and the good files where the
// release may be asked about them.
func TestTheCorpusIsAskedAboutHere(t *testing.T) {
	t.Parallel()
	c, err := corpus.Load()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	here := filepath.Join(dir, "here")
	if err := os.WriteFile(here, []byte("here"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.Files = []corpus.File{{Role: "here", Paths: []string{filepath.Join(dir, "missing"), here}}, {Role: "nowhere", Paths: []string{filepath.Join(dir, "nowhere")}}}
	r := wanting(dir)
	r.addCorpus(c)
	files, good, depth := 0, 0, 0
	for _, s := range r.steps {
		switch q := s.question; {
		case q != nil && q.from == fromGood:
			good++
			if q.kind == event.Open && !strings.HasPrefix(q.file.Path, dir+"/") {
				t.Errorf("an open of %s is asked about", q.file.Path)
			}
		case q != nil && q.file.Path == here:
			files++
		case q != nil && q.from != fromCorpus:
			t.Errorf("%s is from the %v", q.file.Path, q.from)
		case s.event != nil && s.event.Kind == event.Exec:
			depth++
			if s.event.Process.Key.PID <= noPID || s.event.Process.Parent == s.event.Process.Key || s.event.Time == 0 {
				t.Errorf("an exec by %+v", s.event.Process)
			}
		case s.event != nil && s.event.Kind == event.Exit:
			depth--
		}
	}
	if files != 2 || r.report.Absent != 1 || good < len(c.Good) || depth != 0 {
		t.Errorf("%d questions about the file, %d absent, %d about good files, %d processes left", files, r.report.Absent, good, depth)
	}
	before := len(r.steps)
	r.addCorpus(&corpus.Corpus{Files: c.Files})
	if len(r.steps) != before {
		t.Errorf("it is asked about a file twice")
	}
}

// TestGoodFilesCannotBeChanged by whoever is asked about them.
func TestGoodFilesCannotBeChanged(t *testing.T) {
	t.Parallel()
	q := question{from: fromGood, data: []byte("good"), file: event.File{Path: "/home/alice/good"}}
	fd, err := q.descriptor()
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "good")
	defer f.Close()
	if text, err := io.ReadAll(f); err != nil || string(text) != "good" || q.file.Size != 4 || q.file.Ino == 0 {
		t.Errorf("%q of %+v, %v", text, q.file, err)
	}
	if _, err := unix.Pwrite(fd, []byte("x"), 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("it can be written to: %v", err)
	}
	if again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0); err == nil {
		if _, err := again.WriteString("x"); err == nil {
			t.Error("opened anew it can be written to")
		}
		_ = again.Close()
	}
}

// TestFaultsOfAnswers: how much of what is fine where.
func TestFaultsOfAnswers(t *testing.T) {
	t.Parallel()
	said := func(n int, q question, denied bool) (out []*ask) {
		for i := range n {
			one := q
			one.file.Ino = uint64(i) + 1
			out = append(out, &ask{q: &one, deny: denied})
		}
		return out
	}
	good, common, past := question{from: fromGood}, question{from: fromCorpus}, question{from: fromPast, before: allow}
	denied := question{from: fromGood, before: deny}
	wrong := question{from: fromOwn, want: deny}
	for name, c := range map[string]struct {
		said     []*ask
		compared bool
		fault    string
	}{
		"nothing":                     {nil, true, ""},
		"one_good_file":               {said(1, good, true), true, "1 files that are good beyond doubt"},
		"good_files_denied_before":    {said(30, denied, true), true, ""},
		"good_files_of_an_allow_list": {said(20, good, true), false, ""},
		"too_many_of_a_first_release": {said(21, good, true), false, "21 files that were not denied before"},
		"a_little_of_the_corpus":      {said(20, common, true), true, ""},
		"much_of_the_corpus":          {said(21, common, true), true, "21 files that were not denied before"},
		"corpus_and_past":             {append(said(15, common, true), said(15, past, true)...), true, ""}, // they are the same files
		"an_own_test":                 {said(1, wrong, false), true, "1 of its own tests fail, e.g. it allows"},
		"an_own_test_that_is_right":   {said(1, wrong, true), true, ""},
	} {
		r := wanting()
		r.cfg.Limits, r.compared, r.peer.said = r.cfg.Limits.withDefaults(), c.compared, c.said
		r.trial = &product.Trial{Grants: grant.Grant{Deny: true}}
		got := r.compare(true)
		if faults := strings.Join(r.faults(&got), "; "); (faults == "") != (c.fault == "") || !strings.Contains(faults, c.fault) {
			t.Errorf("%s: %q, want %q", name, faults, c.fault)
		}
	}
}
