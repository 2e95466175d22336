package critical

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// runningPrograms returns the executables and mapped files of PID 1 and of running processes that have a role, in this
// mount namespace. Processes come and go meanwhile; one that is gone is no error.
func (c *collector) runningPrograms() ([]string, error) {
	entries, err := os.ReadDir(c.cfg.Proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	wanted := make(map[string]bool, len(roles))
	for _, name := range roles {
		wanted[c.real(name)] = true
	}
	own, _ := os.Readlink(filepath.Join(c.cfg.Proc, "self/ns/mnt"))
	var out []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join(c.cfg.Proc, e.Name())
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || (pid != 1 && !wanted[exe]) {
			continue
		}
		// In another mount namespace the same name is another file.
		if ns, err := os.Readlink(filepath.Join(dir, "ns/mnt")); err == nil && ns != own && pid != 1 {
			continue
		}
		out = append(append(out, exe), mappedFiles(filepath.Join(dir, "maps"))...)
	}
	return out, nil
}

// mappedFiles returns the files mapped executable, from lines of "start-end perms offset dev inode path".
func mappedFiles(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []string
	last := ""
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) != 6 || !strings.Contains(fields[1], "x") || fields[5] == last || fields[5][0] != '/' {
			continue
		}
		last = fields[5]
		out = append(out, last)
	}
	return out
}
