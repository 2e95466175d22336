package brake

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
)

// The rules by which a product is braked.
const (
	TooManyPackageFiles = "package_files"
	TooManyFiles        = "files"
	TooManyCritical     = "critical"
	TooManyExecs        = "execs"
)

const (
	// patience is how long a file may go without being looked up until it counts as a package's.
	patience = 5 * time.Second

	// A share of execs means nothing among few, or where few programs are denied again and again. Files that belong to root
	// alone, because whoever is not root could make any number of others to get the brake on.
	minExecs     = 20
	minExecFiles = 5

	namedFiles = 10 // how many files a record names
)

// sample notes how many execs there were, for products that denied something lately: on time, or where it is the first.
func (b *Brake) sample(onTime bool) {
	if b.cfg.Execs == nil || b.cfg.Repeated == nil {
		return
	}
	var names []string
	b.mu.Lock()
	for name, w := range b.products {
		if len(w.files) > 0 && (onTime || len(w.rate.samples) == 0) {
			names = append(names, name)
		}
	}
	b.mu.Unlock()
	if len(names) == 0 {
		return
	}
	execs, ok := b.cfg.Execs()
	if !ok {
		return
	}
	now := b.cfg.Now()
	for _, name := range names {
		repeated := b.cfg.Repeated(name)
		b.mu.Lock()
		if w := b.products[name]; w != nil {
			w.rate.add(sample{at: now, execs: execs, denied: w.execs + repeated}, w.limits.Window)
		}
		b.mu.Unlock()
	}
}

// classify looks up whose the denied files are.
func (b *Brake) classify() {
	type open struct {
		w    *watched
		id   identity
		file event.File
	}
	var todo []open
	b.mu.Lock()
	for _, w := range b.products {
		for id, d := range w.files {
			if d.owner == pending {
				todo = append(todo, open{w, id, d.file})
			}
		}
	}
	b.mu.Unlock()
	for i := range todo {
		o := &todo[i]
		owned, known := b.cfg.Owned(&o.file)
		if !known {
			continue
		}
		b.mu.Lock()
		o.w.found(o.id, owned)
		b.mu.Unlock()
	}
}

// judge brakes the products that are beyond a limit. It reports whether there is anything left that time will change.
func (b *Brake) judge() (busy bool) {
	now := b.cfg.Now()
	var breaches []*Record
	var told []health.Entry
	b.mu.Lock()
	for _, w := range b.products {
		w.prune(now)
		if w.braked == nil {
			if rule, reason := w.breach(now); rule != "" {
				breaches = append(breaches, &Record{
					Product: w.name, Release: w.release, Since: time.Now().UTC(), Rule: rule, Reason: reason, Files: w.names(rule),
				})
			}
		}
		if critical := len(w.critical) > 0; critical || w.reported {
			w.reported = critical
			told = append(told, w.criticalEntry())
		}
		busy = busy || !w.empty()
	}
	b.mu.Unlock()
	for _, e := range told {
		b.cfg.Health.Set(e)
	}
	for _, r := range breaches {
		b.brake(r)
	}
	return busy
}

// breach says which limit the product is beyond, and in what way; nothing if it is within all.
func (w *watched) breach(now uint64) (rule, reason string) {
	owned, execs := 0, 0
	for _, d := range w.files {
		if d.owner == packaged || d.owner == pending && now-d.first > uint64(patience) {
			owned++
		}
		if d.exec && rootOnly(&d.file) {
			execs++
		}
	}
	l := w.limits
	switch {
	case len(w.critical) >= l.Critical:
		return TooManyCritical, fmt.Sprintf("it denied files of the critical set %d times within %v, the last: %s", len(w.critical), l.Window, w.lastCritical)
	case owned > l.PackageFiles:
		return TooManyPackageFiles, fmt.Sprintf("it denied %d different files of packages within %v, the limit is %d", owned, l.Window, l.PackageFiles)
	case len(w.files) > l.Files:
		return TooManyFiles, fmt.Sprintf("it denied more than %d different files within %v", l.Files, l.Window)
	}
	denied, all := w.rate.share()
	if execs >= minExecFiles && denied >= minExecs && denied*100 > uint64(l.ExecPercent)*all {
		return TooManyExecs, fmt.Sprintf("it denied %d of the last %d execs, the limit is %d %%", denied, all, l.ExecPercent)
	}
	return "", ""
}

// names lists some of the files that a product denied, those that the rule is about, in the order of their denial.
func (w *watched) names(rule string) []string {
	if rule == TooManyCritical {
		return []string{w.lastCritical}
	}
	var files []*denied
	for _, d := range w.files {
		if rule != TooManyPackageFiles || d.owner != foreign {
			files = append(files, d)
		}
	}
	slices.SortFunc(files, func(a, b *denied) int {
		return cmp.Or(cmp.Compare(a.first, b.first), strings.Compare(a.file.Path, b.file.Path))
	})
	var out []string
	for _, d := range files[:min(len(files), namedFiles)] {
		out = append(out, d.file.Path)
	}
	return out
}

// criticalEntry says that a product wants to deny what the machine cannot do without.
func (w *watched) criticalEntry() health.Entry {
	e := health.Entry{Component: "product." + w.name + ".denies", Status: health.OK, Summary: "it denies no file of the critical set"}
	if len(w.critical) > 0 {
		e.Status = health.Degraded
		e.Summary = "it denied a file that this machine cannot do without, which did not count: " + w.lastCritical
		e.Remedy = fmt.Sprintf("see `bailey events finding --product %s`; a product that is wrong about such files is wrong about others: go back to its last good release, or stop it", w.name)
	}
	return e
}

// brake takes the right to deny from a product, remembers it and tells the operator.
func (b *Brake) brake(r *Record) {
	b.change.Lock()
	defer b.change.Unlock()
	b.mu.Lock()
	w := b.watchedLocked(r.Product)
	if w.braked != nil {
		b.mu.Unlock()
		return
	}
	w.braked = r
	w.clear()
	b.mu.Unlock()

	b.cfg.Restrain(r.Product, true, r.Reason) // first: all else can wait
	err := b.save()
	b.tellBraked(r)
	b.cfg.Log.Error("product is braked: its denies do not count", "product", r.Product, "release", r.Release, "rule", r.Rule, "reason", r.Reason, "files", r.Files)
	if err != nil {
		b.cfg.Log.Error("braked products are not remembered", "err", err)
	}
}

func (b *Brake) tellBraked(r *Record) {
	b.cfg.Health.Set(health.Entry{
		Component: component(r.Product), Status: health.Degraded,
		Summary: fmt.Sprintf("braked, its denies do not count: %s", r.Reason),
		Remedy:  fmt.Sprintf("look at what it denies (`bailey brake list`, `bailey events finding --product %s`), then `bailey brake release %s`, or install a release that is right", r.Product, r.Product),
	})
}

func component(product string) string { return "product." + product + ".brake" }
