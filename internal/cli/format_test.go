package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"bailey/agent/config"
	"bailey/agent/control"
	"bailey/agent/health"
	"bailey/agent/sensor/probe"
	productv1 "bailey/api/product/v1"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
)

func TestEveryErrorHasItsExitCode(t *testing.T) {
	t.Parallel()
	a := &app{run: "/run/bailey"}
	for name, c := range map[string]struct {
		err  error
		code int
	}{
		"own":              {&failure{code: ExitUsage}, ExitUsage},
		"said_already":     {silent(ExitFailed), ExitFailed},
		"config":           {fmt.Errorf("load: %w", &config.Error{}), ExitConfig},
		"no_socket":        {connect.NewError(connect.CodeUnavailable, fmt.Errorf("dial: %w", fs.ErrNotExist)), ExitNoAgent},
		"dead_socket":      {connect.NewError(connect.CodeUnavailable, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)), ExitNoAgent},
		"forbidden_socket": {connect.NewError(connect.CodeUnavailable, fmt.Errorf("dial: %w", syscall.EACCES)), ExitPermission},
		"agent_ended":      {connect.NewError(connect.CodeUnavailable, errors.New("EOF")), ExitNoAgent},
		"bad_argument":     {connect.NewError(connect.CodeInvalidArgument, errors.New("x")), ExitUsage},
		"not_found":        {connect.NewError(connect.CodeNotFound, errors.New("x")), ExitNotFound},
		"exists":           {connect.NewError(connect.CodeAlreadyExists, errors.New("x")), ExitConflict},
		"changed":          {connect.NewError(connect.CodeFailedPrecondition, errors.New("x")), ExitConflict},
		"refused_peer":     {connect.NewError(connect.CodePermissionDenied, errors.New("x")), ExitPermission},
		"agent_failed":     {connect.NewError(connect.CodeInternal, errors.New("x")), ExitFailed},
		"run_dir_in_use":   {&control.Fault{Class: control.Exists, Err: control.ErrInUse}, ExitConflict},
		"reader_left":      {fmt.Errorf("print: %w", syscall.EPIPE), ExitFailed},
		"interrupted":      {context.Canceled, ExitFailed},
		"file_permission":  {fmt.Errorf("open: %w", fs.ErrPermission), ExitPermission},
		"anything_else":    {errors.New("x"), ExitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := a.explain(c.err).code; got != c.code {
				t.Errorf("%v: exit code %d, want %d", c.err, got, c.code)
			}
		})
	}
}

func TestPlainLetsNothingReachTheTerminal(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/usr/bin/ls":        "/usr/bin/ls",
		"grün 日本":            "grün 日本",
		"\x1b]0;owned\a":     `\x1b]0;owned\a`,
		"two\nlines":         `two\nlines`,
		"\u202egnp.exe":      `\u202egnp.exe`,
		"broken\xff":         `broken\xff`,
		`"quoted" \ nothing`: `"quoted" \ nothing`,
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestShellWord(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "''", "a": "a", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'"} {
		if got := shellWord(in); got != want {
			t.Errorf("shellWord(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestTableIsAlignedWhateverItsColours(t *testing.T) {
	t.Parallel()
	var tab table
	tab.row("NAME", "N", "")
	tab.row(cell{"é", func(s string) string { return "<" + s + ">" }}, 12, "x")
	tab.row("longer", 3)
	var b bytes.Buffer
	tab.print(&b, "  ")
	if want := "  NAME    N\n  <é>       12  x\n  longer  3\n"; b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestSizesAndSpans(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 128 << 20: "128.0 MiB", 3 << 30: "3.0 GiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0s", 61_234: "61.2µs", 12_345_678: "12.35ms", 1_234_567_890: "1.23s", 3_700e9: "1h1m40s"} {
		if got := span(n); got != want {
			t.Errorf("span(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestEventDetails(t *testing.T) {
	t.Parallel()
	l := newEventLine(func(_ colour, s string) string { return s }, false)
	for name, c := range map[string]struct {
		e    *productv1.Event
		want string
	}{
		"script":   {&productv1.Event{Exec: &productv1.Exec{Argv: []string{"/bin/sh", "x.sh"}, ArgvTruncated: true, Script: "/x.sh"}}, "/bin/sh x.sh … (script /x.sh)"},
		"long":     {&productv1.Event{Exec: &productv1.Exec{Argv: []string{strings.Repeat("x", maxArguments+1)}}}, strings.Repeat("x", maxArguments) + "…"},
		"fork":     {&productv1.Event{Fork: &productv1.Fork{Child: &productv1.Process{Key: &productv1.ProcessKey{Pid: 5}}}}, "→ 5"},
		"exit":     {&productv1.Event{Exit: &productv1.Exit{Code: 3}}, "code 3"},
		"deleted":  {&productv1.Event{File: &productv1.FileEvent{File: &productv1.File{Path: "/tmp/x", Deleted: true}}}, "/tmp/x (deleted)"},
		"no_path":  {&productv1.Event{File: &productv1.FileEvent{File: &productv1.File{Ino: 7, Dev: 8}}}, "inode 7 on device 8"},
		"shadow":   {&productv1.Event{Verdict: &productv1.Verdict{Allow: true, Asked: productv1.Kind_open, File: &productv1.File{Path: "/x"}, Reason: "default", Cached: true, Answers: []*productv1.ProductAnswer{{Product: "p", Shadow: true, Outcome: "missed"}}}}, "allow open /x by default in 0s [p deny missed shadow] cached"},
		"product":  {&productv1.Event{Product: &productv1.ProductState{Product: "p", Release: "1", State: "backoff", Authority: "off", Reason: "it crashed"}}, "p 1 is backoff, authority off (it crashed)"},
		"health":   {&productv1.Event{Health: &productv1.HealthEntry{Component: "c", Status: "degraded", Summary: "s", Remedy: "r"}}, "c is degraded: s (r)"},
		"tamper":   {&productv1.Event{Tamper: &productv1.Tamper{Hook: "task_kill", Refused: true, Target: &productv1.ProcessKey{Pid: 7}, Suppressed: 3}}, "refused task_kill of 7, and 3 more"},
		"undone":   {&productv1.Event{Tamper: &productv1.Tamper{Hook: "h", Undone: true, Name: "n"}}, "undone h of n"},
		"agent_up": {&productv1.Event{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := l.detail(c.e); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestFeatureCheck(t *testing.T) {
	t.Parallel()
	missing := probe.Result{Err: errors.New("no such thing")}
	for name, c := range map[string]struct {
		f    probe.Feature
		r    probe.Result
		want check
	}{
		"there":    {probe.Feature{Name: "f", Gives: "g", Remedy: "r", Missing: health.Failed}, probe.Result{Supported: true}, check{Name: "f", Status: "ok", Required: true, Summary: "g"}},
		"required": {probe.Feature{Name: "f", Gives: "g", Remedy: "r", Missing: health.Failed}, missing, check{Name: "f", Status: "failed", Required: true, Summary: "not available (no such thing), so not: g", Remedy: "r"}},
		"useful":   {probe.Feature{Name: "f", Gives: "g", Remedy: "r", Missing: health.Degraded}, missing, check{Name: "f", Status: "degraded", Summary: "not available (no such thing), so not: g", Remedy: "r"}},
		"spare":    {probe.Feature{Name: "f", Gives: "g", Remedy: "r", Missing: health.OK}, missing, check{Name: "f", Status: "absent", Summary: "not missed: g (no such thing)"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, featureCheck(c.f, c.r)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
