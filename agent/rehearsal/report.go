package rehearsal

import (
	"time"

	"bailey/agent/event"
)

// Report is what came of one rehearsal.
type Report struct {
	Product   string
	Release   string // that was tried
	Installed string // that it was compared with; empty if none
	Passed    bool
	Reasons   []string // why it did not pass, each a sentence
	Notes     []string // what the rehearsal could not see
	Began     time.Time
	Took      time.Duration

	Events   int // that it was told
	Recorded int // questions of the past that it was asked
	Critical int // questions about critical files that it was asked
	Corpus   int // questions about what is done on every machine that it was asked
	Absent   int // files of the corpus that this machine does not have
	Good     int // questions about files that come with Bailey that it was asked
	Own      int // tests that came with it that it was asked
	Changed  int // questions of the past whose file is not there any more, or is another one
	Unasked  int // questions for which there was no time

	Answered int
	Denied   int
	NewDeny  Differences // it denies what the installed release allowed, or was not asked
	NewAllow Differences // it allows what the installed release denied

	Median, P99, Slowest time.Duration // of its answers, at idle priority
	CPU                  time.Duration // of a processor
	Memory, MemoryLimit  int64         // bytes
	Log                  string        // the end of what it wrote
}

// Differences are answers that are not what they were.
type Differences struct {
	Files    int // different ones
	Critical int // of them, critical ones
	Good     int // of them, files that come with Bailey
	Packaged int // of the others, files that packages own
	Examples []Difference
}

// Difference is one of them.
type Difference struct {
	Asked    event.Kind
	File     string // its path
	By       string // the program that used it
	Before   string // what the installed release answered: allow, deny, or nothing
	Source   string // past, critical file, corpus or good file
	Critical bool
	Packaged bool
}

// maxExamples is how many differences of a kind are shown, of critical files, of good ones, of those of packages, and of others.
const maxExamples = 10

// tally collects differences of one kind.
type tally struct {
	Differences
	seen  map[fileKey]bool
	shown [4]int // examples, in that order
}

// fileKey is one file as it was.
type fileKey struct {
	dev, ino uint64
	ctime    int64
}

func keyOf(f *event.File) fileKey { return fileKey{f.Dev, f.Ino, f.CTime} }

// add counts q unless its file was counted.
func (t *tally) add(q *question, packaged bool) {
	if t.seen == nil {
		t.seen = map[fileKey]bool{}
	}
	k := keyOf(&q.file)
	if t.seen[k] {
		return
	}
	t.seen[k] = true
	t.Files++
	class := 3
	switch {
	case q.critical:
		t.Critical++
		class = 0
	case q.from == fromGood:
		t.Good++
		class = 1
	case packaged:
		t.Packaged++
		class = 2
	}
	if t.shown[class]++; t.shown[class] > maxExamples {
		return
	}
	d := Difference{Asked: q.kind, File: q.file.Path, Before: q.before.String(), Source: q.from.String(), Critical: q.critical, Packaged: packaged}
	if q.process != nil {
		d.By = q.process.Executable.Path
	}
	t.Examples = append(t.Examples, d)
}
