package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"bailey/test/started"
)

const patience = time.Minute

func startChild(log, name string, args ...string) (*started.Program, error) {
	return started.Start(log, nil, name, args...)
}

// startService starts a program as a service manager does: a child of process 1 in a control group of its own.
func startService(log, group, name string, args ...string) (*started.Program, error) {
	if err := os.MkdirAll(group, 0o755); err != nil {
		return nil, err
	}
	const script = `group=$1 log=$2; shift 2; echo $$ >"$group/cgroup.procs" && { "$@" >"$log" 2>&1 </dev/null & echo $!; }`
	out, err := exec.Command("sh", append([]string{"-c", script, "sh", group, log, name}, args...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return started.Adopt(log, pid)
}

// end asks a program to stop, and kills it when it does not.
func end(p *started.Program) error {
	if p.End(30 * time.Second) {
		return fmt.Errorf("it did not stop: %s", p.Output())
	}
	return nil
}
