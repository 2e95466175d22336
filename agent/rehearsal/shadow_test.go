package rehearsal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/agent/product/grant"
)

// verdictOf is the outcome of one question that both were asked.
func verdictOf(ino uint64, live, beside event.Answer) *event.Event {
	live.Product, beside.Product, beside.Shadow = "p", "p.next", true
	return &event.Event{Kind: event.Verdict, Process: &event.Process{Executable: event.File{Path: "/bin/sh"}}, Verdict: &event.VerdictDetail{
		Asked: event.Exec, File: event.File{Path: fmt.Sprintf("/opt/tool%d", ino), Dev: 1, Ino: ino}, Answers: []event.Answer{live, beside},
	}}
}

func says(allow bool) event.Answer {
	return event.Answer{Outcome: event.Answered, Allow: allow, Latency: uint64(time.Millisecond)}
}

func newTestShadow(g grant.Grant) *Shadow {
	return NewShadow(Live{
		Product: "p", Beside: "p.next", Grants: g, IsCritical: func(f *event.File) bool { return f.Ino < 10 },
		Owned: func(f *event.File) (bool, bool) { return f.Ino >= 1000, true },
	})
}

func TestShadow(t *testing.T) {
	denier := grant.Grant{Deny: true}
	silent := event.Answer{Outcome: event.Missed, Allow: true}
	tests := map[string]struct {
		grants grant.Grant
		feed   func(*Shadow)
		harm   string
	}{
		"the_same_answers": {denier, func(s *Shadow) {
			for i := range uint64(500) {
				s.Take(verdictOf(i, says(i%2 == 0), says(i%2 == 0)), 0)
			}
		}, ""},
		"one_file_a_hundred_times": {denier, func(s *Shadow) {
			for range 100 {
				s.Take(verdictOf(50, says(true), says(false)), 0)
			}
		}, ""},
		"many_files": {denier, func(s *Shadow) {
			for i := range uint64(21) {
				s.Take(verdictOf(50+i, says(true), says(false)), 0)
			}
		}, "it denies 21 files"},
		"files_of_packages": {denier, func(s *Shadow) {
			for i := range uint64(6) {
				s.Take(verdictOf(1000+i, says(true), says(false)), 0)
			}
		}, "6 files of packages"},
		"a_critical_file":          {denier, func(s *Shadow) { s.Take(verdictOf(1, says(true), says(false)), 0) }, "1 critical files, e.g. /opt/tool1"},
		"a_critical_file_by_right": {grant.Grant{Deny: true, DenyCritical: true}, func(s *Shadow) { s.Take(verdictOf(1, says(true), says(false)), 0) }, ""},
		"without_the_right_to_deny": {grant.Grant{}, func(s *Shadow) {
			for i := range uint64(100) {
				s.Take(verdictOf(i, says(true), says(false)), 0)
			}
		}, ""},
		"no_more_denied_than_before": {denier, func(s *Shadow) {
			for i := range uint64(100) {
				s.Take(verdictOf(i, says(false), says(false)), 0)
				s.Take(verdictOf(i, says(false), says(true)), 0)
			}
		}, ""},
		"the_live_one_was_not_needed": {denier, func(s *Shadow) {
			for i := range uint64(100) {
				s.Take(verdictOf(i, event.Answer{Outcome: event.Unneeded}, says(false)), 0)
			}
		}, ""},
		"silence": {denier, func(s *Shadow) {
			for i := range uint64(3) {
				s.Take(verdictOf(i, says(true), silent), 0)
			}
		}, "it missed 3 of 3 questions"},
		"a_miss_now_and_then": {denier, func(s *Shadow) {
			for i := range uint64(500) {
				s.Take(verdictOf(i, says(true), says(true)), 0)
			}
			for i := range uint64(5) {
				s.Take(verdictOf(i, says(true), silent), 0)
			}
		}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newTestShadow(tt.grants)
			tt.feed(s)
			if got := s.Harm(); got != tt.harm && (tt.harm == "" || !strings.Contains(got, tt.harm)) {
				t.Errorf("harm: %q, expected %q", got, tt.harm)
			}
		})
	}
}

func TestShadowReport(t *testing.T) {
	s := newTestShadow(grant.Grant{Deny: true})
	s.Take(&event.Event{Kind: event.Exec}, 0)
	for i := range uint64(2000) {
		s.Take(verdictOf(50+i, says(true), says(i != 7)), i%2)
	}
	other := verdictOf(1, says(true), says(true))
	other.Verdict.Answers = other.Verdict.Answers[:1] // before it was there
	s.Take(other, 0)
	r := s.Report()
	if r.Asked != 2000 || r.Compared != 2000 || r.Unseen != 1000 || r.NewDeny.Files != 1 || r.Median != time.Millisecond || r.P99 != time.Millisecond {
		t.Errorf("%+v", r)
	}
	if len(r.NewDeny.Examples) != 1 || r.NewDeny.Examples[0].By != "/bin/sh" || r.NewDeny.Examples[0].Before != "allow" {
		t.Errorf("%+v", r.NewDeny.Examples)
	}
}
