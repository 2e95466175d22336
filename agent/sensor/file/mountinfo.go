package file

import (
	"bytes"
	"fmt"
	"strconv"
)

// mount is one line of /proc/PID/mountinfo.
type mount struct {
	id, parent uint64
	dev        uint64 // of the superblock, as makedev: equal for all mounts of one file system, even where st_dev differs
	root       string // the directory of the file system that is mounted
	point      string // as seen from the process's root
	fsType     string
	pid        int  // whose mountinfo it was; 0 means the agent's own
	overRemote bool // it, or a mount on the way to it, is served by somebody who may not answer
}

// parseMountinfo reads what proc_pid_mountinfo(5) describes. A line that does not fit is an error: the kernel writes none.
func parseMountinfo(data []byte, pid int) ([]mount, error) {
	var out []mount
	for len(data) > 0 {
		line := data
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line, data = data[:i], data[i+1:]
		} else {
			data = nil
		}
		if len(line) == 0 {
			continue
		}
		m, err := parseMount(line)
		if err != nil {
			return nil, fmt.Errorf("parse mountinfo line %q: %w", line, err)
		}
		m.pid = pid
		out = append(out, m)
	}
	markRemote(out)
	return out, nil
}

// markRemote sets overRemote. A cycle of parents, which the kernel does not make, ends the walk.
func markRemote(mounts []mount) {
	index := make(map[uint64]int, len(mounts))
	for i, m := range mounts {
		index[m.id] = i
	}
	for i := range mounts {
		for at, steps := i, 0; steps < len(mounts); steps++ {
			if classOf(mounts[at].fsType) == fsRemote {
				mounts[i].overRemote = true
				break
			}
			parent, ok := index[mounts[at].parent]
			if !ok || parent == at {
				break
			}
			at = parent
		}
	}
}

func parseMount(line []byte) (m mount, err error) {
	front, back, ok := bytes.Cut(line, []byte(" - "))
	f := bytes.Split(front, []byte(" "))
	if !ok || len(f) < 6 {
		return m, fmt.Errorf("it has %d fields before the separator", len(f))
	}
	if m.id, err = strconv.ParseUint(string(f[0]), 10, 64); err != nil {
		return m, err
	}
	if m.parent, err = strconv.ParseUint(string(f[1]), 10, 64); err != nil {
		return m, err
	}
	if m.dev, err = parseDev(f[2]); err != nil {
		return m, err
	}
	m.root, m.point = unescape(f[3]), unescape(f[4])
	fsType, _, _ := bytes.Cut(back, []byte(" "))
	m.fsType = unescape(fsType)
	if m.point == "" || m.fsType == "" {
		return m, fmt.Errorf("it names no mount point or no type")
	}
	return m, nil
}

func parseDev(b []byte) (uint64, error) {
	major, minor, ok := bytes.Cut(b, []byte(":"))
	if !ok {
		return 0, fmt.Errorf("device %q is not major:minor", b)
	}
	a, err := strconv.ParseUint(string(major), 10, 32)
	if err != nil {
		return 0, err
	}
	i, err := strconv.ParseUint(string(minor), 10, 32)
	if err != nil {
		return 0, err
	}
	return makeDev(a, i), nil
}

// makeDev packs a device number for use as a key; it is the kernel's own s_dev, not st_dev.
func makeDev(major, minor uint64) uint64 { return major<<32 | minor }

// unescape undoes the octal escapes that the kernel uses for space, tab, newline, # and backslash.
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) && isOctal(b[i+1]) && b[i+1] <= '3' && isOctal(b[i+2]) && isOctal(b[i+3]) {
			out = append(out, (b[i+1]-'0')<<6|(b[i+2]-'0')<<3|(b[i+3]-'0'))
			i += 3
			continue
		}
		out = append(out, b[i])
	}
	return string(out)
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }
