package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	controlv1 "bailey/api/control/v1"
	"bailey/test/rig"

	"google.golang.org/protobuf/encoding/protojson"
)

// rehearse tries a release and returns its report. The command's exit status must agree with it.
func rehearse(a *rig.Agent, s rig.Spec) *controlv1.Rehearsal {
	a.T.Helper()
	cmd := a.Command("product", "rehearse", a.Folder(s), "--yes", "--json")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	r := &controlv1.Rehearsal{}
	if perr := protojson.Unmarshal(out.Bytes(), r); perr != nil {
		a.T.Fatalf("bailey product rehearse: %v: %v: %s%s", err, perr, out.String(), said.String())
	}
	var exit *exec.ExitError
	if r.GetPassed() != (err == nil) || err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		a.T.Errorf("it passed: %t, and the command ended with %v", r.GetPassed(), err)
	}
	return r
}

// engine is a product with content, as the vendor of channel file 291 had one: content is its content.txt.
func engine(version, content string, settings map[string]string) rig.Spec {
	return rig.Spec{Name: "engine", Version: version, Events: "exec", Questions: "exec,open", Settings: settings, Files: map[string]string{"content.txt": content}}
}

// testingItself has a product's program test itself with an argument.
func testingItself(s rig.Spec, arg string) rig.Spec {
	s.Run = fmt.Sprintf("self_test = [\"./faulty\", %q]\n", arg)
	return s
}

// Content of 21 fields, of which the sensor fills in 20: with a wildcard in the last one nobody reads it.
const (
	fields      = ",*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,"
	goodContent = "instance /evil" + fields + "*\n"
	badContent  = "instance *" + fields + "pipe\n"
)

// lived makes a past: programs that were run and files that were read, each answered by the product.
func lived(a *rig.Agent, product string) (programs, files []string) {
	a.T.Helper()
	for i := range 30 {
		programs = append(programs, a.Program(fmt.Sprintf("program-%d", i)))
		files = append(files, a.File(fmt.Sprintf("file-%d", i), fmt.Sprint("text ", i), 0o644))
	}
	time.Sleep(300 * time.Millisecond) // files younger than a moment may still be changed unseen
	for i := range programs {
		if err := execs(programs[i]); err != nil {
			a.T.Fatal(err)
		}
		if _, err := os.ReadFile(files[i]); err != nil {
			a.T.Fatal(err)
		}
	}
	want := 2*len(programs) + 3*len(files) // each asked about when it was made, a program's exec and open, a file's open
	a.Eventually("the past is on disk", 10*time.Second, func() error {
		if n := strings.Count(strings.Join(history(a, "--kind", "verdict"), "\n"), a.Scratch); n < want {
			return fmt.Errorf("%d of %d verdicts", n, want)
		}
		return nil
	})
	return programs, files
}

// TestRehearsal: releases that are broken in the ways in which releases are, and good ones, meet this machine's past before they get a
// say, while the installed one goes on answering.
func TestRehearsal(t *testing.T) {
	a := startAgent(t, "")
	a.Install(engine("1.0.0", goodContent+"prefix "+a.Scratch+"/home/alice/report.pdf\n", nil))
	programs, files := lived(a, "engine")
	before := a.Product("engine")
	for _, c := range []struct {
		name string
		spec rig.Spec
		fail string // empty: it passes
		sees func(*controlv1.Rehearsal) error
	}{
		{name: "good", spec: engine("1.1.0", goodContent, nil), sees: func(r *controlv1.Rehearsal) error {
			if r.GetRecorded() < uint32(len(programs)+len(files)) || r.GetCritical() < 100 || r.GetEvents() == 0 || r.GetGood() < 30 || r.GetAnswered() != r.GetRecorded()+r.GetCritical()+r.GetCorpus()+r.GetGood() {
				return errors.New("it was asked too little")
			}
			if r.GetNewDeny().GetFiles() != 0 || r.GetInstalled() != before.GetRelease() || !strings.HasPrefix(r.GetRelease(), "1.1.0-") {
				return errors.New("it was compared with something else")
			}
			return nil
		}},
		{name: "its_self_test_is_content", spec: testingItself(engine("1.1.0", goodContent, nil), "--role=self_test")},
		{name: "its_self_test_fails", spec: testingItself(engine("1.1.0", goodContent, nil), "--role=nobody"), fail: "its self-test failed: exited with status 1"},
		{name: "channel_file_at_load", spec: engine("1.1.0", badContent+"check load\n", nil), fail: "it exited with status 1"},
		{name: "channel_file_at_match", spec: engine("1.1.0", badContent, nil), fail: "it exited with status 1 while it was asked about"},
		{name: "dies_of_a_signal", spec: engine("1.1.0", goodContent, map[string]string{"fault": "segv", "at": "question"}), fail: "SIGSEGV) while it was asked about"},
		{name: "crash_at_an_event", spec: engine("1.1.0", goodContent, map[string]string{"fault": "panic", "at": "event"}), fail: "it exited with status 1"},
		{name: "silent_with_a_heartbeat", spec: engine("1.1.0", goodContent, map[string]string{"heartbeat": "true", "worker": "dies"}), fail: "it does not answer: "},
		{name: "denies_everything", spec: engine("1.1.0", goodContent+"prefix /\n", nil), fail: " critical files, e.g. ", sees: func(r *controlv1.Rehearsal) error {
			if d := r.GetNewDeny(); d.GetCritical() < 100 || d.GetFiles() < d.GetCritical()+uint32(len(programs)) || len(r.GetReasons()) < 2 || d.GetExamples()[0].GetBefore() != "allow" {
				return errors.New("not all of it is told")
			}
			return nil
		}},
		{name: "denies_one_more", spec: engine("1.1.0", goodContent+"prefix "+programs[3]+"\n", nil), sees: func(r *controlv1.Rehearsal) error {
			d := r.GetNewDeny()
			if len(d.GetExamples()) == 0 || d.GetExamples()[0].GetFile() != programs[3] || d.GetExamples()[0].GetBefore() != "allow" || d.GetCritical() != 0 {
				return errors.New("it is not told what would be different")
			}
			return nil
		}},
		{name: "crash_some_seconds_later", spec: engine("1.1.0", goodContent, map[string]string{"fault": "panic", "at": "3s"}), fail: "it exited with status 2"},
		{name: "leaks", spec: engine("1.1.0", goodContent, map[string]string{"fault": "memory", "at": "ready"}), fail: "out of memory"},
		{name: "broken_frames", spec: engine("1.1.0", goodContent, map[string]string{"fault": "malformed", "at": "ready"}), fail: "protocol"},
		{name: "asks_less", spec: rig.Spec{Name: "engine", Version: "1.1.0", Questions: "exec"}, fail: "it does not want to be asked about open"},
		{name: "starts_well_once", spec: engine("1.1.0", goodContent, map[string]string{"starts": "1"}), fail: "started once more, it exited with status 1"},
		{name: "denies_the_empty_file", spec: engine("1.1.0", goodContent+"sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n", nil),
			fail: "it denies 1 files that are good beyond doubt, e.g. " + a.Scratch + "/home/alice/empty.txt"},
		{name: "denies_what_it_denied", spec: engine("1.1.0", goodContent+"prefix "+a.Scratch+"/home/alice/report.pdf\n", nil), sees: func(r *controlv1.Rehearsal) error {
			if r.GetNewDeny().GetFiles() != 0 || r.GetDenied() == 0 {
				return errors.New("the installed release denies it, too")
			}
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rehearse(a, c.spec)
			reasons := strings.Join(r.GetReasons(), "; ")
			if r.GetPassed() != (c.fail == "") || !strings.Contains(reasons, c.fail) {
				t.Errorf("passed %t: %q, want %q", r.GetPassed(), reasons, c.fail)
			}
			if c.sees != nil {
				if err := c.sees(r); err != nil {
					t.Error(err)
				}
			}
			if t.Failed() {
				t.Log(r)
			}
			if took := time.Duration(r.GetTook()); took > time.Minute {
				t.Errorf("it took %v", took)
			}
		})
	}
	if err := execs(a.Program("afterwards")); err != nil {
		t.Error(err)
	}
	after := a.Product("engine")
	if after.GetPid() != before.GetPid() || after.GetRestarts() != 0 || after.GetCounters().GetMisses() != 0 || after.GetRelease() != before.GetRelease() ||
		after.GetCounters().GetAnswers() <= before.GetCounters().GetAnswers() {
		t.Errorf("the installed release is %v", after)
	}
	left, err := filepath.Glob(filepath.Join(a.State, "products", ".*"))
	groups, gerr := filepath.Glob("/sys/fs/cgroup/*/bailey-*/engine.trial")
	if err != nil || gerr != nil || len(left)+len(groups) > 0 {
		t.Errorf("left behind: %v %v %v %v", left, groups, err, gerr)
	}
}

// TestRehearsalOfOwnTests: what a vendor knows the answers to is asked, and each wrong answer counts; what the vendor brings is not trusted further
// than that.
func TestRehearsalOfOwnTests(t *testing.T) {
	a := startAgent(t, "")
	list := func(tests string) map[string]string {
		return map[string]string{
			"content.txt": goodContent + "pattern a virus\n", "rehearsal/tests.json": `{"schema":1,"tests":[` + tests + `]}`,
			"rehearsal/bad.txt": "this is a virus", "rehearsal/good.txt": "this is none",
		}
	}
	const both = `{"file":"bad.txt","path":"/home/bob/mail","ask":"open","expect":"deny"},{"file":"good.txt","ask":"exec","expect":"allow"}`
	for name, c := range map[string]struct{ tests, fail string }{
		"right":   {both, ""},
		"wrong":   {both + `,{"file":"good.txt","ask":"open","expect":"deny"}`, "1 of its own tests fail, e.g. it allows " + a.Scratch + "/rehearsal/good.txt, which it is to deny"},
		"missing": {both + `,{"file":"no.txt","ask":"open","expect":"deny"}`, "read the product's own tests: "},
		"outside": {`{"file":"../content.txt","ask":"open","expect":"deny"}`, "is no name of a file in rehearsal"},
	} {
		t.Run(name, func(t *testing.T) {
			s := engine("1.0.0", "", nil)
			s.Files = list(c.tests)
			r := rehearse(a, s)
			if reasons := strings.Join(r.GetReasons(), "; "); r.GetPassed() != (c.fail == "") || !strings.Contains(reasons, c.fail) || c.fail == "" && r.GetOwn() != 2 {
				t.Errorf("passed %t after %d own tests: %q, want %q", r.GetPassed(), r.GetOwn(), reasons, c.fail)
			}
		})
	}
}

// TestInstallOnlyWhatPassed: content like channel file 291 is offered; it dies in its rehearsal and is not installed, and every question is
// answered meanwhile. What is good is installed.
func TestInstallOnlyWhatPassed(t *testing.T) {
	a := startAgent(t, "")
	a.Install(engine("1.0.0", goodContent, nil))
	lived(a, "engine")
	before := a.Product("engine")
	stop, asked := make(chan struct{}), make(chan error)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				asked <- nil
				return
			default:
			}
			if _, err := os.ReadFile(a.File(fmt.Sprintf("meanwhile-%d", i), "text", 0o644)); err != nil {
				asked <- err
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	out, err := a.Bailey("product", "install", a.Folder(engine("2.0.0", badContent, nil)), "--yes", "--rehearse")
	close(stop)
	if err := <-asked; err != nil {
		t.Error(err)
	}
	if err == nil || !strings.Contains(out, "nothing was installed") || !strings.Contains(out, "while it was asked about") {
		t.Errorf("%v: %s", err, out)
	}
	p := a.Product("engine")
	if c := p.GetCounters(); p.GetRelease() != before.GetRelease() || p.GetPid() != before.GetPid() || c.GetMisses() != 0 || c.GetAnswers() != c.GetQuestions() || c.GetQuestions() <= before.GetCounters().GetQuestions() {
		t.Errorf("the installed release is %v", p)
	}
	a.Must("product", "install", a.Folder(engine("2.0.1", goodContent, nil)), "--yes", "--rehearse")
	a.Running("engine")
	if p := a.Product("engine"); !strings.HasPrefix(p.GetRelease(), "2.0.1-") {
		t.Errorf("the good release is not installed: %v", p)
	}
}
