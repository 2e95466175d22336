// Package cgroup2 says which control group of version 2 a process is in. It changes none.
package cgroup2

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Root is where the hierarchy is mounted.
const Root = "/sys/fs/cgroup"

// Of returns the path of a process's control group below Root, "" if it is in none of version 2.
func Of(pid uint32) (string, error) {
	text, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/cgroup")
	if err != nil {
		return "", fmt.Errorf("ask for a process's control group: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path, nil
		}
	}
	return "", nil
}
