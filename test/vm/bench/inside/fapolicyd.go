package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"bailey/test/bench/contender"
	"bailey/test/started"
)

// fapolicydLane runs Debian's fapolicyd with one rule that allows everything, on the filesystem that is worked on.
type fapolicydLane struct {
	w     *world
	child *started.Program
}

func (*fapolicydLane) hooks() bool  { return false }
func (*fapolicydLane) builds() bool { return false }

func (l *fapolicydLane) start() error {
	for _, d := range []string{"/etc/fapolicyd/trust.d", "/var/lib/fapolicyd", "/run/fapolicyd"} {
		if err := os.MkdirAll(d, 0o770); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"fapolicyd.conf": contender.FapolicydConfig("ext4"), "compiled.rules": contender.FapolicydAllows, "fapolicyd.trust": "",
	} {
		if err := os.WriteFile(filepath.Join("/etc/fapolicyd", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	var err error
	if l.child, err = startChild("/run/fapolicyd.log", "/bin/fapolicyd", "--debug-deny", "--permissive", "--no-details"); err != nil {
		return err
	}
	return l.child.Await(context.Background(), patience, func() error {
		if out := l.child.Output(); !strings.Contains(out, "Starting to listen for events") {
			return fmt.Errorf("it does not listen yet: %s", out)
		}
		return nil
	})
}

func (l *fapolicydLane) stop() error {
	if l.child == nil {
		return nil
	}
	err := end(l.child)
	if out := l.child.Output(); strings.Contains(out, "dec=deny") {
		err = errors.Join(err, fmt.Errorf("it denied something: %s", out))
	}
	return err
}
