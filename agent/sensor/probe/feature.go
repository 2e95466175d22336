package probe

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"bailey/agent/health"
)

// Result is a probe's answer.
type Result struct {
	Supported bool
	Err       error // why not, nil if supported
}

// Feature is one thing that a kernel may or may not do. Features made by one call of All are safe for concurrent use.
type Feature struct {
	Name    string        // dotted, e.g. "fanotify.permission"; also its component in the health registry
	Gives   string        // what Bailey does with it
	Kernel  string        // the mainline release that brought it, for information only
	Remedy  string        // what an operator can do where it is missing
	Missing health.Status // how bad that is: OK for what Bailey does without at no loss

	result func() Result
}

func feature(name, gives, kernel, remedy string, missing health.Status, check func() error) Feature {
	return Feature{
		Name: name, Gives: gives, Kernel: kernel, Remedy: remedy, Missing: missing,
		result: sync.OnceValue(func() Result {
			err := check()
			return Result{Supported: err == nil, Err: err}
		}),
	}
}

// Probe asks the kernel, the first time only.
func (f Feature) Probe() Result { return f.result() }

// All returns every feature, in the order in which a human reads them. Nothing is probed yet.
func All() []Feature {
	var all []Feature
	all = append(all, fanotifyFeatures()...)
	all = append(all, bpfFeatures()...)
	all = append(all, processFeatures()...)
	all = append(all, containmentFeatures()...)
	return append(all, cgroupFeatures()...)
}

// Report probes the features and sets a health entry for each one whose absence costs something.
func Report(registry *health.Registry, features []Feature) {
	for _, f := range features {
		if f.Missing == health.OK {
			continue
		}
		entry := health.Entry{Component: f.Name, Status: health.OK, Summary: f.Gives}
		if result := f.Probe(); !result.Supported {
			entry.Status, entry.Remedy = f.Missing, f.Remedy
			entry.Summary = fmt.Sprintf("not available (%v), so not: %s", result.Err, f.Gives)
			if Forbidden(result.Err) {
				entry.Remedy = "run the agent as root with all capabilities, then: " + f.Remedy
			}
		}
		registry.Set(entry)
	}
}

// Forbidden reports whether a probe failed for want of a privilege, so that nothing is known of the kernel.
func Forbidden(err error) bool {
	return os.Geteuid() != 0 && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES))
}
