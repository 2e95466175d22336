package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"bailey/sdk"
)

// behaviour is what the settings ask for. The zero value answers allow at once.
type behaviour struct {
	session *sdk.Session
	started time.Time
	set     map[string]string
	content *content
	clock   clock
	cloud   *cloud
	ledger  ledger

	deny        bool          // answer "deny" to everything
	denyAfter   time.Duration // … from that time after the start on
	denyPaths   []string      // deny what lies below one of them
	denyContent string        // deny what contains it in its first 64 KiB
	denyShare   int           // deny that many of a hundred, evenly
	cache       bool          // say that the answer depends on the file alone
	delay       time.Duration // wait before answering
	eventDelay  time.Duration // handle each event that slowly
	only        string        // misbehave only for files below it
	every       uint64        // misbehave at every nth question only
	hang        bool          // never answer
	hangAfter   time.Duration // … from that time after the start on
	slow        bool          // extend every question for ever, and never answer
	read        bool          // report the file's first bytes as a finding
	seen        bool          // report every event as a finding
	faults      []string      // what to break, by the names of faults
	at          string        // when: load, ready, question, event, or a time after the start
	asked       atomic.Uint64
	jobs        chan func() // to a worker of its own; nil: there is none
}

// ready is OnReady: everything that can fail at the load of content fails here.
func (b *behaviour) ready(s *sdk.Session) error {
	b.session, b.started = s, time.Now()
	if err := b.configure(s.Settings()); err != nil {
		return err
	}
	if b.set["exit"] == "true" {
		return fmt.Errorf("told to exit")
	}
	if err := b.clock.licence(b.set); err != nil {
		return err
	}
	if err := openState(b.set["state"]); err != nil {
		return err
	}
	starts := 0
	if err := number(b.set, "starts", &starts); err != nil {
		return err
	}
	if err := countStart(starts); err != nil {
		return err
	}
	var err error
	if b.content, err = loadContent(); err != nil {
		return err
	}
	if b.cloud, err = newCloud(b.set); err != nil {
		return err
	}
	b.strike("load")
	b.background()
	if rules := s.Settings()["rules"]; rules != "" {
		go b.installRules(rules) // the reply comes when this has returned
	}
	return nil
}

func (b *behaviour) configure(set map[string]string) error {
	b.set = set
	b.deny = set["answer"] == "deny"
	b.denyPaths = strings.FieldsFunc(set["deny_path"], func(r rune) bool { return r == ',' })
	b.denyContent = set["deny_content"]
	b.cache = set["cache"] == "true"
	b.only = set["only"]
	b.hang = set["hang"] == "true"
	b.slow = set["slow"] == "true"
	b.read = set["read"] == "true"
	b.seen = set["seen"] == "true"
	b.ledger.on = set["ledger"] == "true"
	b.at = set["at"]
	b.faults = strings.FieldsFunc(set["fault"], func(r rune) bool { return r == ',' })
	if set["crash"] == "true" {
		b.faults, b.at = append(b.faults, "panic"), "question"
	}
	for _, name := range b.faults {
		if faults[name] == nil {
			return fmt.Errorf("read the setting fault: there is no fault %q", name)
		}
	}
	for key, to := range map[string]*int{"deny_share": &b.denyShare} {
		if err := number(set, key, to); err != nil {
			return err
		}
	}
	every := 0
	if err := number(set, "every", &every); err != nil {
		return err
	}
	b.every = uint64(every)
	for key, to := range map[string]*time.Duration{"delay": &b.delay, "hang_after": &b.hangAfter, "deny_after": &b.denyAfter, "event_delay": &b.eventDelay} {
		if set[key] == "" {
			continue
		}
		var err error
		if *to, err = time.ParseDuration(set[key]); err != nil {
			return fmt.Errorf("read the setting %s: %w", key, err)
		}
	}
	return b.clock.configure(set["clock"])
}

func number(set map[string]string, key string, to *int) (err error) {
	if set[key] == "" {
		return nil
	}
	if *to, err = strconv.Atoi(set[key]); err != nil {
		return fmt.Errorf("read the setting %s: %w", key, err)
	}
	return nil
}

// background starts what goes on beside the answers. It lives as long as the process.
func (b *behaviour) background() {
	if b.set["worker"] == "dies" {
		b.jobs = make(chan func())
		go b.work()
	}
	if b.set["heartbeat"] == "true" {
		go b.beat()
	}
	if b.at == "ready" {
		time.AfterFunc(200*time.Millisecond, func() { b.strike("ready") }) // after the subscription
	}
	if after, err := time.ParseDuration(b.at); err == nil && after > 0 {
		time.AfterFunc(after, func() { b.strike(b.at) })
	}
}

// strike breaks what is to be broken at this moment.
func (b *behaviour) strike(moment string) {
	if b.at != moment {
		return
	}
	for _, name := range b.faults {
		faults[name](b, nil)
	}
}

// work is the verdict worker of a product whose main thread goes on as if nothing had happened: it ends at the first
// question that is meant, without a word.
func (b *behaviour) work() {
	for job := range b.jobs {
		if job == nil {
			return
		}
		job()
	}
}

// beat says that all is well, as heart-beats do.
func (b *behaviour) beat() {
	for {
		b.finding("alive", nil)
		time.Sleep(200 * time.Millisecond)
	}
}

// question is OnQuestion.
func (b *behaviour) question(ctx context.Context, q *sdk.Question) sdk.Answer {
	n := b.asked.Add(1)
	if b.only != "" && !strings.HasPrefix(q.GetFile().GetPath(), b.only) {
		return b.cached(sdk.Allow)
	}
	if b.every > 1 && n%b.every != 0 {
		return b.cached(sdk.Allow)
	}
	if b.jobs != nil {
		return b.byWorker(q)
	}
	return b.answer(ctx, q)
}

// byWorker hands the question to the worker, which is no more.
func (b *behaviour) byWorker(q *sdk.Question) sdk.Answer {
	select {
	case b.jobs <- nil:
	default:
	}
	answer := make(chan sdk.Answer)
	b.jobs <- func() { answer <- b.answer(context.Background(), q) } // nobody takes it
	return <-answer
}

func (b *behaviour) answer(ctx context.Context, q *sdk.Question) sdk.Answer {
	if b.at == "question" {
		for _, name := range b.faults {
			faults[name](b, q)
		}
	}
	b.clock.extend(b.set["extend"], q)
	if b.slow {
		b.stretch(q)
	}
	if b.hang || b.hangAfter > 0 && time.Since(b.started) > b.hangAfter {
		select {} // the deadline is somebody else's
	}
	if b.delay > 0 {
		time.Sleep(b.delay)
	}
	if b.read {
		b.report(q)
	}
	if b.cloud.denies(ctx, q) || b.denies(q) || b.content.denies(q) {
		return b.cached(sdk.Deny)
	}
	return b.cached(sdk.Allow)
}

// stretch asks for more time again and again, and never answers.
func (b *behaviour) stretch(q *sdk.Question) {
	for {
		if err := q.Extend(time.Hour); err != nil {
			fmt.Fprintln(os.Stderr, "faulty:", err)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (b *behaviour) cached(a sdk.Answer) sdk.Answer {
	if b.cache {
		return a.CacheFile()
	}
	return a
}

func (b *behaviour) denies(q *sdk.Question) bool {
	if b.deny || b.denyAfter > 0 && time.Since(b.started) > b.denyAfter {
		return true
	}
	for _, p := range b.denyPaths {
		if strings.HasPrefix(q.GetFile().GetPath(), p) {
			return true
		}
	}
	if b.denyShare > 0 && int(q.Seq%100)*7%100 < b.denyShare { // 7 and 100 have no common divisor: every hundred the same number
		return true
	}
	return b.denyContent != "" && strings.Contains(head(q, 64<<10), b.denyContent)
}

func (b *behaviour) event(e *sdk.Event) {
	b.ledger.event(b, e)
	b.strike("event")
	if b.eventDelay > 0 {
		time.Sleep(b.eventDelay)
	}
	if b.seen {
		b.finding("seen", map[string]string{
			"kind": e.GetKind().String(), "seq": fmt.Sprint(e.GetSeq()), "path": e.GetFile().GetFile().GetPath(),
		})
	}
}

func (b *behaviour) lost(_ *sdk.Session, l sdk.Lost) { b.ledger.lost(l) }
