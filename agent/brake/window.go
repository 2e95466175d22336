package brake

import (
	"time"

	"bailey/agent/event"
)

// identity is one file, however often it is denied.
type identity struct{ dev, ino uint64 }

// owner says whose a denied file is.
type owner uint8

const (
	pending owner = iota // not looked up yet, or it could not be said
	packaged
	foreign
)

// denied is one file that a product denied within its window.
type denied struct {
	file        event.File
	exec        bool
	first, last uint64
	owner       owner
}

// watched is what one product denied lately. Not safe for concurrent use.
type watched struct {
	name, release string
	limits        Limits
	files         map[identity]*denied // one more than may be denied, at most
	suspects      int                  // of them, those that are a package's or may be
	critical      []uint64             // times of overridden denies of the critical set, at most as many as the limit
	lastCritical  string
	reported      bool   // denies of the critical set are in the health registry
	execs         uint64 // execs denied by its own answers, ever
	rate          rate

	braked *Record
	count  uint64 // denies that did not count because it is braked, since it is
}

func newWatched(name string, l Limits) *watched {
	return &watched{name: name, limits: l, files: make(map[identity]*denied)}
}

// admit remembers a deny that would decide its question, and reports whether it may.
func (w *watched) admit(d *event.Denial) bool {
	f := w.note(d)
	if f == nil || len(w.files) > w.limits.Files || f.owner == pending && w.suspects > w.limits.PackageFiles {
		w.prune(d.Time)
		f = w.note(d)
	}
	switch {
	case f == nil, len(w.files) > w.limits.Files:
		return false
	case f.owner == pending && w.suspects > w.limits.PackageFiles:
		// Whose it is is found out a moment later; until then it counts as a package's.
		return false
	}
	if d.Asked == event.Exec {
		w.execs++
	}
	return true
}

// note remembers a denied file and returns it; nil where there is no room.
func (w *watched) note(d *event.Denial) *denied {
	exec := d.Asked == event.Exec
	id := identity{d.File.Dev, d.File.Ino}
	if known := w.files[id]; known != nil {
		known.last = d.Time
		known.exec = known.exec || exec
		return known
	}
	if len(w.files) > w.limits.Files {
		return nil
	}
	f := &denied{file: d.File, exec: exec, first: d.Time, last: d.Time}
	if f.file.Path != "" && !rootOnly(&f.file) {
		f.owner = foreign // packages bring nothing that others than root could have made
	} else {
		w.suspects++
	}
	w.files[id] = f
	return f
}

// rootOnly reports whether a file belongs to root and may be written by nobody else.
func rootOnly(f *event.File) bool { return f.UID == 0 && f.Mode&0o022 == 0 }

// found says whose a file is.
func (w *watched) found(id identity, owned bool) {
	f := w.files[id]
	switch {
	case f == nil || f.owner != pending:
	case owned:
		f.owner = packaged
	default:
		f.owner = foreign
		w.suspects--
	}
}

// overridden remembers a deny of a critical file.
func (w *watched) overridden(d *event.Denial) {
	w.lastCritical = d.File.Path
	w.critical = append(w.critical, d.Time)
	if over := len(w.critical) - w.limits.Critical; over > 0 {
		w.critical = append(w.critical[:0], w.critical[over:]...)
	}
}

// prune forgets what is older than the window.
func (w *watched) prune(now uint64) {
	old := func(at uint64) bool { return now > at && now-at > uint64(w.limits.Window) }
	for id, f := range w.files {
		if !old(f.last) {
			continue
		}
		if f.owner != foreign {
			w.suspects--
		}
		delete(w.files, id)
	}
	for len(w.critical) > 0 && old(w.critical[0]) {
		w.critical = w.critical[1:]
	}
	if len(w.files) == 0 {
		w.rate = rate{}
	}
}

// empty reports whether there is nothing to judge.
func (w *watched) empty() bool { return len(w.files) == 0 && len(w.critical) == 0 }

// clear forgets everything.
func (w *watched) clear() {
	clear(w.files)
	w.critical, w.suspects, w.rate = nil, 0, rate{}
}

// rate follows how many of the machine's execs a product denied. It needs no history before the first deny.
type rate struct {
	samples []sample // one a look, not more than the window holds
}

type sample struct {
	at            uint64
	execs, denied uint64
}

// add takes a sample; those before the window are forgotten, but for one to count from.
func (r *rate) add(s sample, window time.Duration) {
	r.samples = append(r.samples, s)
	for len(r.samples) > 1 && s.at-r.samples[1].at >= uint64(window) {
		r.samples = r.samples[1:]
	}
}

// share returns how many execs were denied within the window, and how many there were in all.
func (r *rate) share() (denied, all uint64) {
	if len(r.samples) == 0 {
		return 0, 0
	}
	first, last := r.samples[0], r.samples[len(r.samples)-1]
	denied = last.denied - first.denied
	return denied, denied + last.execs - first.execs
}
