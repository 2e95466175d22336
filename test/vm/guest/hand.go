package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"time"

	"bailey/test/vm/wire"
)

// serve runs the host's commands, one after the other.
func serve() error {
	port, err := openReport()
	if err != nil {
		return err
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(port), json.NewEncoder(port)
	if err := out.Encode(wire.Hello{Boot: strings.TrimSpace(string(id))}); err != nil {
		return err
	}
	for {
		var r wire.Request
		if err := in.Decode(&r); err != nil {
			return err
		}
		if err := out.Encode(execute(r)); err != nil {
			return err
		}
	}
}

func execute(r wire.Request) wire.Reply {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.Limit*float64(time.Second)))
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", r.Command)
	cmd.Dir = "/root"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	cmd.WaitDelay = time.Second // what it left in the background may keep its output
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState == nil {
		return wire.Reply{Output: []byte(err.Error()), Code: wire.Killed}
	}
	return wire.Reply{Output: out, Code: cmd.ProcessState.ExitCode()}
}
