package incident

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	controlv1 "bailey/api/control/v1"
	productv1 "bailey/api/product/v1"
	"bailey/test/rig"
)

// witness is the healthy product beside the faulty one.
const witness = "witness"

// scenes counts them.
var scenes atomic.Uint32

// scene is an agent on a scratch filesystem with the witness, and canaries to measure with.
type scene struct {
	*rig.Agent
	t         *testing.T
	canary    string // a program on the scratch filesystem
	unwatched string // the same on another
	file      string // a file on the scratch filesystem
	verdicts  *rig.Tap
	findings  *rig.Tap
	boot      string
	uids      uint32
	tree      string // the agent's directory of control groups
}

// newScene starts an agent with the defaults that operators have.
func newScene(t *testing.T) *scene {
	t.Helper()
	return newSceneWith(t, func(*scene) string { return "" })
}

// newSceneWith lets prepare put things in place and return the agent's configuration before it starts.
func newSceneWith(t *testing.T, prepare func(*scene) string) *scene {
	t.Helper()
	s := &scene{Agent: rig.New(t, built, ""), t: t, boot: bootID(t)}
	// Users of their own: what they leave behind is this scene's, whatever else runs on the machine.
	s.uids = 1_900_100_000 + (uint32(os.Getpid()%1000)*64+scenes.Add(1)%64)*1024
	s.WriteConfig(prepare(s) + fmt.Sprintf("\n[products]\nuid_base = %d\n", s.uids))
	s.canary, s.file = s.Program("canary"), s.Agent.File("canary.txt", "canary", 0o644)
	s.unwatched = filepath.Join(s.Dir, "canary")
	s.CopyFile(s.canary, s.unwatched, 0o755)
	s.Start()
	t.Cleanup(s.end)
	s.Install(rig.Spec{Name: witness, Events: "exec,close_write", Questions: "exec,open",
		Settings: map[string]string{"ledger": "true"}, Limits: "cpu = 1.0\n"})
	s.verdicts, s.findings = s.Tap("verdict"), s.Tap("finding")
	s.tree = filepath.Base(filepath.Dir(s.groups(witness)[0]))
	return s
}

// end stops the agent and looks for what it left.
func (s *scene) end() {
	s.Stop()
	if left := leftovers("", "", s.uids, s.uids+1024); len(left) > 0 {
		s.t.Errorf("after the agent's end: %v", left)
	}
	if now := bootID(s.t); now != s.boot {
		s.t.Errorf("the machine was started again: boot %s, before %s", now, s.boot)
	}
}

func bootID(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// replay is one story being played.
type replay struct {
	*scene
	row      row
	name     string // of the faulty product
	product  *controlv1.Product
	commands []*exec.Cmd // of the operator, still waiting
	strain   float64     // what others had the machine do when it began
}

// replay plays one story on the scene, judges it and notes the row.
func (s *scene) replay(st story, play func(*replay)) {
	s.t.Helper()
	if st.Long && resultFile() == "" {
		s.t.Logf("%s takes long and is run by `make incidents`", st.ID)
		return
	}
	r := &replay{scene: s, row: row{story: st}, name: strings.ToLower(st.ID), strain: strain()}
	if st.Loses {
		r.strain = mostStrain // the load that it makes is more than the machine can do
	}
	start, done := time.Now(), false
	defer func() {
		r.row.failed = r.row.failed || !done
		r.row.took = time.Since(start)
		s.t.Logf("%s %s: %s (%s) · longest exec %s open %s control %s · lost %s · others' p99 %s · %d canaries, %d refused · strain %.1f",
			st.ID, st.Did, r.row.verdict(), r.row.took.Round(time.Millisecond), ms(r.row.felt.exec.longest()), ms(r.row.felt.open.longest()),
			ms(r.row.felt.control.longest()), r.row.felt.share(), ms(r.row.felt.other.p99()), len(r.row.felt.exec)+len(r.row.felt.open), r.row.felt.refused, r.strain)
		rows.Lock()
		defer rows.Unlock()
		rows.all = append(rows.all, r.row)
	}()
	play(r)
	r.judge()
	r.clearAway()
	done = true
}

// errorf fails the replay and its test, and goes on.
func (r *replay) errorf(format string, args ...any) {
	r.t.Helper()
	r.row.failed = true
	r.t.Errorf(r.row.ID+": "+format, args...)
}

// spec is the faulty product of this replay, asked about everything.
func (r *replay) spec(settings map[string]string) rig.Spec {
	return rig.Spec{Name: r.name, Questions: "exec,open", Settings: settings}
}

// plays installs a faulty product.
func (r *replay) plays(s rig.Spec) {
	r.t.Helper()
	r.Install(s)
	r.product = r.Product(s.Name)
}

// attempts installs a release that may not run. The operator's command waits for it to be ready; the test does not wait for the
// command.
func (r *replay) attempts(s rig.Spec) {
	r.t.Helper()
	r.attemptsFolder(r.Folder(s))
}

func (r *replay) attemptsFolder(folder string) {
	r.t.Helper()
	cmd := r.Command("product", "install", folder, "--yes")
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = cmd.Wait() }) // what it says is not what is tested
	r.commands = append(r.commands, cmd)
}

// until waits for a condition of this replay.
func (r *replay) until(what string, within time.Duration, f func() error) {
	r.t.Helper()
	r.Eventually(r.row.ID+": "+what, within, f)
}

// watch measures what the machine feels while f runs.
func (r *replay) watch(f func()) felt {
	r.t.Helper()
	before, seen := r.Product(witness).GetCounters(), len(r.verdicts.All())
	c := r.canaries()
	stopped := false
	stop := func() (felt, error) {
		stopped = true
		return c.end()
	}
	defer func() {
		if !stopped { // f gave up
			got, _ := stop()
			r.row.felt.add(got)
		}
	}()
	f()
	got, fault := stop()
	if fault != nil && !r.row.Refuses {
		r.errorf("a canary: %v", fault)
	}
	after := r.Product(witness).GetCounters()
	got.events, got.lost = sub(after.GetEvents(), before.GetEvents()), sub(after.GetLost(), before.GetLost())
	got.misses = sub(after.GetMisses(), before.GetMisses())
	if events := r.verdicts.All(); len(events) >= seen {
		got.other = answersOf(witness, events[seen:])
	}
	r.row.felt.add(got)
	return got
}

// sub is how much a counter grew; an agent that was started again counts anew.
func sub(after, before uint64) uint64 {
	if after < before {
		return after
	}
	return after - before
}

// watchFor measures for some time.
func (r *replay) watchFor(d time.Duration) felt {
	r.t.Helper()
	return r.watch(func() { time.Sleep(d) })
}

// judge holds what was felt against the limits that every replay has.
func (r *replay) judge() {
	r.t.Helper()
	f := &r.row.felt
	if len(f.exec) == 0 || len(f.open) == 0 {
		r.errorf("nothing was measured")
	}
	around := f.control.longest()
	// An exec asks twice: about executing the file, and about opening it.
	if got, limit := f.exec.longest(), max(execDeadline, r.row.Cap)+max(openDeadline, r.row.Cap)+r.row.Waits+r.strained(slack)+around; got > limit {
		r.errorf("an exec took %s, an unwatched one at most %s: the limit is %s", got, around, limit)
	}
	if got, limit := f.open.longest(), max(openDeadline, r.row.Cap)+r.row.Waits+r.strained(slack)+around; got > limit {
		r.errorf("an open took %s, an unwatched exec at most %s: the limit is %s", got, around, limit)
	}
	if f.refused > 0 && !r.row.Refuses {
		r.errorf("%d canaries were refused", f.refused)
	}
	if f.lost > 0 && !r.row.Loses && !r.row.Dies {
		r.errorf("the healthy product lost %d of %d events", f.lost, f.lost+f.events)
	}
	questions := f.misses + uint64(len(f.other))
	if limit := r.allowedMisses(questions); f.misses > limit {
		r.errorf("the healthy product missed %d of %d questions", f.misses, questions)
	}
	if p99 := f.other.p99(); p99 > openDeadline*budgetOfHundred/100+around && r.strain == 1 {
		r.errorf("the healthy product's answers took %s (p99)", p99)
	}
	if p := r.Product(witness); p.GetState() != "running" || p.GetRestarts() > 0 && !r.row.Dies {
		r.errorf("the healthy product is %s after %d restarts: %s", p.GetState(), p.GetRestarts(), p.GetReason())
	}
	r.settle()
}

// allowedMisses is none but those that it was being asked when the story ended it, unless others have the machine busy: then a
// healthy product is late as well, the more the busier, and a few questions say nothing.
func (r *replay) allowedMisses(questions uint64) uint64 {
	if r.strain == 1 {
		return uint64(r.row.Ends * asking)
	}
	if questions < 20 {
		return questions
	}
	return 3 + uint64(float64(questions)*r.strain/8)
}

// strained is a slack on this machine as it was when the replay began.
func (r *replay) strained(slack time.Duration) time.Duration {
	return time.Duration(float64(slack) * r.strain)
}

// strain is how many times as much runs or wants to run now as a machine in use has, which is twice its processors; 1 below that,
// and never more than mostStrain: what is slower than that is not the others' fault. It is taken before a fault begins, and not from
// the load average, which counts those who wait for a verdict.
func strain() float64 {
	const samples = 10
	sum := 0
	for range samples {
		sum += runnable()
		time.Sleep(10 * time.Millisecond)
	}
	return min(max(1, float64(sum)/samples/float64(2*runtime.NumCPU())), mostStrain)
}

// runnable is how many threads of the machine run or want to.
func runnable() int {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "procs_running "); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(v))
			return n
		}
	}
	return 0
}

// settle waits until no question is open, and then every one that the kernel asked has exactly one outcome.
func (r *replay) settle() {
	r.t.Helper()
	r.until("every question has an outcome", 5*time.Second, func() error {
		q := r.Status().GetQuestions()
		var sum uint64
		for _, n := range q.GetByReason() {
			sum += n
		}
		if q.GetInFlight() != 0 || sum != q.GetAsked() {
			return fmt.Errorf("%d questions, %d outcomes, %d in flight: %v", q.GetAsked(), sum, q.GetInFlight(), q.GetByReason())
		}
		return nil
	})
}

// clearAway removes the products of this replay and looks for what they left.
func (r *replay) clearAway() {
	r.t.Helper()
	for _, cmd := range r.commands {
		_ = cmd.Process.Kill() // it may have ended
	}
	for _, p := range r.Status().GetProducts() {
		if p.GetName() == witness || p.GetName() == "allowlist" {
			continue
		}
		r.Must("product", "remove", p.GetName())
		r.row.left = append(r.row.left, leftovers(r.tree, p.GetName(), p.GetUid(), p.GetUid()+1)...)
	}
	if len(r.row.left) > 0 {
		r.errorf("left behind: %v", r.row.left)
	}
	r.balance()
}

// balance asks the witness for its account: what it received and what it was told it lost leave no hole.
func (r *replay) balance() {
	r.t.Helper()
	path := r.Agent.File(fmt.Sprintf("ledger-%d", time.Now().UnixNano()), "", 0o644)
	e := r.finding("ledger", 10*time.Second, func(f *productv1.Finding) bool { return f.GetFields()["asked_by"] == path })
	if e.GetFields()["silent"] != "0" {
		r.errorf("the healthy product's events have a hole that nobody announced: %v", e.GetFields())
	}
}

// finding waits for a finding of a product.
func (s *scene) finding(rule string, within time.Duration, fits func(*productv1.Finding) bool) *productv1.Finding {
	s.t.Helper()
	var found *productv1.Finding
	s.Eventually("the finding "+rule, within, func() error {
		for _, e := range s.findings.All() {
			if f := e.GetFinding(); f.GetRule() == rule && (fits == nil || fits(f)) {
				found = f
				return nil
			}
		}
		return fmt.Errorf("%d findings, not this one", len(s.findings.All()))
	})
	return found
}

// ofCulprit accepts the findings of this replay's product.
func (r *replay) ofCulprit(f *productv1.Finding) bool { return f.GetProduct() == r.name }
