package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"bailey/agent/event"
	"bailey/agent/product"
	"bailey/agent/recorder"
	"bailey/agent/rehearsal"
	controlv1 "bailey/api/control/v1"
)

// rehearsedBytes is how much of what was recorded is read for a rehearsal, compressed.
const rehearsedBytes = 8 << 20

// Rehearse tries the folder, if it is still the one that was approved, against this machine's past.
func (o *operator) Rehearse(ctx context.Context, path, approved string, say func(*controlv1.RehearsalProgress) error) (*controlv1.Rehearsal, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	report, err := (*Agent)(o).rehearse(ctx, path, approved, func(p rehearsal.Progress) {
		if err := say(&controlv1.RehearsalProgress{Stage: p.Stage, Done: uint32(p.Done), Of: uint32(p.Of)}); err != nil {
			cancel(err) // whoever asked is gone
		}
	})
	if err != nil {
		return nil, fault(err)
	}
	return rehearsalMessage(report), nil
}

// rehearse is Rehearse for whoever asks; progress may be nil. The error is product.ErrBusy while another release is tried.
func (a *Agent) rehearse(ctx context.Context, path, approved string, progress func(rehearsal.Progress)) (*rehearsal.Report, error) {
	select { // before that nothing is known to be critical
	case <-a.critical.Tried():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	plan, err := a.products.Plan(ctx, path)
	if err != nil {
		return nil, err
	}
	cfg := rehearsal.Config{
		Product: plan.Name, Installed: plan.Installed, Asked: a.askedNow(plan.Name), Welcome: a.welcome,
		Try: func(h product.Host) (*product.Trial, error) {
			return a.products.Try(path, h, func(r product.Request) error { return stillApproved(r, approved, path) })
		},
		TryInstalled: func(h product.Host) (*product.Trial, error) { return a.tryInstalled(plan.Name, plan.Installed, h) },
		Critical:     a.critical.Paths(), Asker: firstProcess(), IsCritical: a.critical.Contains, Owned: a.critical.Owned,
		Limits: a.rehearsalLimits(plan.Name), Progress: progress,
	}
	past, err := a.past()
	if err != nil {
		return nil, err
	}
	if past != nil {
		defer past.Close()
		cfg.Past = recorder.Events{Reader: past}
	}
	report, err := rehearsal.Run(ctx, cfg)
	if err != nil {
		return nil, err
	}
	a.log.Info("release was rehearsed", "product", report.Product, "release", report.Release, "passed", report.Passed, "reasons", report.Reasons,
		"recorded", report.Recorded, "critical", report.Critical, "took", report.Took)
	return report, nil
}

// tryInstalled tries the release that is installed, if it is still the one that is meant.
func (a *Agent) tryInstalled(name, release string, h product.Host) (*product.Trial, error) {
	v, err := a.products.Show(name)
	if err != nil {
		return nil, err
	}
	return a.products.Try(v.Folder, h, func(r product.Request) error {
		if r.Release != release {
			return fmt.Errorf("it is %s by now", r.Release)
		}
		return nil
	})
}

// past opens what was recorded lately; nil where nothing is.
func (a *Agent) past() (*recorder.Reader, error) {
	r, err := recorder.Open(recorder.ReaderConfig{Dir: filepath.Join(a.cfg.Agent.State, recorder.DirName), Decoder: a.codec, Newest: rehearsedBytes})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return r, err
}

// askedNow is what a product is asked about now.
func (a *Agent) askedNow(name string) event.KindSet {
	if m := (*operator)(a).accounts()[name].member; m != nil {
		return m.QuestionKinds
	}
	return 0
}

// rehearsalLimits are those of the brake, which the product meets in earnest.
func (a *Agent) rehearsalLimits(name string) rehearsal.Limits {
	l := rehearsal.Limits{Files: a.cfg.Brake.Files, PackageFiles: a.cfg.Brake.PackageFiles}
	v, err := a.products.Show(name)
	if err != nil {
		return l
	}
	if n := v.Grants.Rates.Files; n != 0 {
		l.Files = n
	}
	if n := v.Grants.Rates.PackageFiles; n != 0 {
		l.PackageFiles = n
	}
	return l
}

// firstProcess is who asks about the critical files: the first process, as root.
func firstProcess() *event.Process {
	return &event.Process{Key: event.ProcessKey{PID: 1, Start: 1}, Comm: "init", Executable: event.File{Path: "/sbin/init", Mode: 0o100755}}
}

func rehearsalMessage(r *rehearsal.Report) *controlv1.Rehearsal {
	return &controlv1.Rehearsal{
		Product: r.Product, Release: r.Release, Installed: r.Installed, Passed: r.Passed, Reasons: r.Reasons, Notes: r.Notes,
		Began: r.Began.UnixNano(), Took: uint64(r.Took), Events: uint32(r.Events), Recorded: uint32(r.Recorded), Critical: uint32(r.Critical),
		Corpus: uint32(r.Corpus), Absent: uint32(r.Absent), Good: uint32(r.Good), Own: uint32(r.Own), Changed: uint32(r.Changed), Unasked: uint32(r.Unasked), Answered: uint32(r.Answered), Denied: uint32(r.Denied),
		NewDeny: differencesMessage(&r.NewDeny), NewAllow: differencesMessage(&r.NewAllow),
		LatencyP50: uint64(r.Median), LatencyP99: uint64(r.P99), LatencyMax: uint64(r.Slowest), Cpu: uint64(r.CPU),
		Memory: uint64(max(r.Memory, 0)), MemoryLimit: uint64(r.MemoryLimit), Log: valid(r.Log),
	}
}

func comparisonMessage(c rehearsal.Comparison) *controlv1.Comparison {
	return &controlv1.Comparison{
		Began: c.Began.UnixNano(), Asked: c.Asked, Compared: c.Compared, Missed: c.Missed, Unseen: c.Unseen,
		NewDeny: differencesMessage(&c.NewDeny), NewAllow: differencesMessage(&c.NewAllow), LatencyP50: uint64(c.Median), LatencyP99: uint64(c.P99),
	}
}

func differencesMessage(d *rehearsal.Differences) *controlv1.RehearsalDifferences {
	m := &controlv1.RehearsalDifferences{Files: uint32(d.Files), Critical: uint32(d.Critical), Good: uint32(d.Good), Packaged: uint32(d.Packaged)}
	for _, e := range d.Examples {
		m.Examples = append(m.Examples, &controlv1.RehearsalDifference{
			Asked: e.Asked.String(), File: valid(e.File), By: valid(e.By), Before: e.Before, Critical: e.Critical, Packaged: e.Packaged, Source: e.Source,
		})
	}
	return m
}

// valid is what a message can hold of a name or of a product's words.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }
