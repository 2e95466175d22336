package leakcheck

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// processState is what one test process holds; each slice is sorted and may hold equal entries.
type processState struct {
	fds, children, files, mounts []string
}

// takeProcess lists what this process holds: files and mounts below dir unless dir is empty, and processes that are its
// children or carry mark in their environment.
func takeProcess(dir, mark string) processState {
	s := processState{fds: openFiles(), children: processes(mark)}
	if dir != "" {
		s.files = filesBelow(dir)
		s.mounts = mountsBelow(dir)
	}
	return s
}

// since describes what is in s and was not in before.
func (s processState) since(before processState) []string {
	lost := difference(before.fds, s.fds, "descriptor")
	lost = append(lost, difference(before.children, s.children, "process")...)
	lost = append(lost, difference(before.mounts, s.mounts, "mount")...)
	return append(lost, difference(before.files, s.files, "temporary file")...)
}

// difference returns the entries that after has more often than before, described with what.
func difference(before, after []string, what string) []string {
	count := map[string]int{}
	for _, b := range before {
		count[b]++
	}
	var more []string
	for _, a := range after {
		if count[a]--; count[a] < 0 {
			more = append(more, what+": "+a)
		}
	}
	return more
}

// openFiles returns the target of every open descriptor, e.g. "/etc/passwd" or "anon_inode:[fanotify]". Numbers of
// sockets and pipes are left out: two of a kind are told apart by count, and a reopened one is not a leak.
func openFiles() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(target, "/proc/") && strings.HasSuffix(target, "/fd") {
			continue // the descriptor that reads this directory
		}
		if kind, _, found := strings.Cut(target, ":["); found && !strings.HasPrefix(target, "anon_inode") {
			target = kind
		}
		out = append(out, target)
	}
	sort.Strings(out)
	return out
}

// processes returns "pid N (comm) state" of every child of this process and of every process that inherited mark.
func processes(mark string) []string {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	self := fmt.Sprint(os.Getpid())
	var out []string
	for _, d := range dirs {
		stat, err := os.ReadFile(d + "/stat")
		if err != nil || filepath.Base(d) == self {
			continue
		}
		open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		fields := strings.Fields(string(stat[end+1:]))
		if len(fields) < 2 {
			continue
		}
		if fields[1] != self && !inherited(d, mark) {
			continue
		}
		out = append(out, fmt.Sprintf("pid %s %s state %s", filepath.Base(d), stat[open:end+1], fields[0]))
	}
	sort.Strings(out)
	return out
}

// inherited finds orphans too, which are nobody's children any more.
func inherited(proc, mark string) bool {
	if strings.HasSuffix(mark, "=") {
		return false // Check without Main: nothing was marked
	}
	env, err := os.ReadFile(proc + "/environ")
	if err != nil {
		return false
	}
	for _, v := range bytes.Split(env, []byte{0}) {
		if string(v) == mark {
			return true
		}
	}
	return false
}

// filesBelow returns the direct entries of dir.
func filesBelow(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, filepath.Join(dir, e.Name()))
	}
	return out
}
