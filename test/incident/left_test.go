package incident

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// leftovers lists what is still there of a product: processes of its users, from (inclusive) to to, and, if it has a name, its
// control groups in the agent's tree of them and what is mounted below its directories. It gives them a moment to go.
func leftovers(tree, name string, from, to uint32) []string {
	var out []string
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out = processesOf(from, to)
		if name != "" {
			out = append(out, groupsOf(tree, name)...)
			out = append(out, mountsOf("/products/"+name+"/")...)
		}
		if len(out) == 0 || time.Now().After(end) {
			return out
		}
	}
}

func processesOf(from, to uint32) []string {
	var out []string
	dirs, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, d := range dirs {
		text, err := os.ReadFile(d)
		if err != nil {
			continue // it ended
		}
		for line := range strings.Lines(string(text)) {
			v, ok := strings.CutPrefix(line, "Uid:")
			if !ok {
				continue
			}
			uid, err := strconv.ParseUint(strings.Fields(v)[0], 10, 32)
			if err == nil && uint32(uid) >= from && uint32(uid) < to {
				out = append(out, fmt.Sprintf("process %s of user %d", filepath.Base(filepath.Dir(d)), uid))
			}
		}
	}
	return out
}

func groupsOf(tree, name string) []string {
	a, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", tree, name))
	b, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", tree, name))
	return append(a, b...)
}

func mountsOf(part string) []string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.Contains(f[4], part) {
			out = append(out, "mount "+f[4])
		}
	}
	return out
}
