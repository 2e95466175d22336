// Package contender is what the bench on the machine at hand and the one in the deterministic machine must set up alike, or their figures could not be
// compared: a product that allows everything, fapolicyd, and a machine at rest. It measures nothing.
package contender

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const manifest = `name = %q
version = "1"
description = "allows everything; measures what asking costs"
[run]
command = ["./product"]
[request]
decide = ["exec", "open"]
deny = true
open_scope = [%q]
[settings]
cache = %q
`

// Manifest is that of test/bench/product below scope; cache is what it lets the agent remember.
func Manifest(name, scope, cache string) string { return fmt.Sprintf(manifest, name, scope, cache) }

const config = `permissive = 1
nice_val = 14
q_size = 640
uid = root
gid = root
do_stat_report = 0
detailed_report = 0
db_max_size = 50
subj_cache_size = 1549
obj_cache_size = 8191
watch_fs = %s
trust = file
integrity = none
syslog_format = rule,dec,perm,auid,pid,exe,:,path,ftype,trust
allow_filesystem_mark = 0
`

// FapolicydConfig is fapolicyd.conf for a type of filesystem.
func FapolicydConfig(filesystem string) string { return fmt.Sprintf(config, filesystem) }

// FapolicydAllows is the one rule of a fapolicyd that allows everything.
const FapolicydAllows = "allow perm=any all : all\n"

// FetchFapolicyd downloads Debian's package, unpacks it in root and returns the package's file name.
func FetchFapolicyd(ctx context.Context, root string) (deb string, err error) {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	if err := run(ctx, root, "apt-get", "download", "-q", "fapolicyd"); err != nil {
		return "", err
	}
	debs, _ := filepath.Glob(filepath.Join(root, "*.deb")) // the pattern is right
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download left %d packages", len(debs))
	}
	if err := run(ctx, root, "dpkg", "-x", debs[0], root); err != nil {
		return "", err
	}
	return filepath.Base(debs[0]), os.Remove(debs[0])
}

func run(ctx context.Context, dir, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", program, args[0], err, out)
	}
	return nil
}

// Ticks are hundredths of a second of all processors since the machine booted.
type Ticks struct{ Busy, All uint64 }

// ProcessorTimes returns how long the processors were not idle, and how long they existed.
func ProcessorTimes() (t Ticks, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return t, fmt.Errorf("read processor times: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var f [8]uint64 // user nice system idle iowait irq softirq steal
	if _, err := fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d %d", &f[0], &f[1], &f[2], &f[3], &f[4], &f[5], &f[6], &f[7]); err != nil {
		return t, fmt.Errorf("read processor times in %q: %w", line, err)
	}
	for i, n := range f {
		t.All += n
		if i != 3 && i != 4 {
			t.Busy += n
		}
	}
	return t, nil
}
