package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"bailey/test/started"
)

// lane is a state of the machine that work is measured in. start returns the process that answers permission events, 0 if
// none does; stop ends it and returns what is worth noting about it.
type lane interface {
	name() string
	start(ctx context.Context) (pid int, err error)
	stop() (note string)
}

// noLane is the machine as it is.
type noLane struct{}

func (noLane) name() string                       { return "none" }
func (noLane) start(context.Context) (int, error) { return 0, nil }
func (noLane) stop() string                       { return "" }

// allLanes returns every lane that can run here, none first.
func allLanes(ctx context.Context, w *world, o options) ([]lane, error) {
	if err := o.absolute(); err != nil {
		return nil, err
	}
	lanes := []lane{noLane{}}
	if _, err := os.Stat(o.bailey); err == nil {
		trivial, err := buildTrivial(ctx, o.cache)
		if err != nil {
			return nil, err
		}
		for _, n := range []int{0, 1, 4, 8} {
			lanes = append(lanes, &agentLane{w: w, bailey: o.bailey, label: fmt.Sprintf("agent_%d", n), products: trivial.folders(n, "none")})
		}
		lanes = append(lanes, &agentLane{w: w, bailey: o.bailey, label: "agent_1_cached", products: trivial.folders(1, "file")})
		if dir := filepath.Join(o.products, "allowlist"); exists(dir) {
			// The exec loop's program is allowed by its digest, as a site would allow its own tool.
			sum := sha256.Sum256(emptyProgram())
			allowlist := folder{name: "allowlist", dir: dir, settings: []string{"allow_sha256=" + hex.EncodeToString(sum[:])}}
			lanes = append(lanes, &agentLane{w: w, bailey: o.bailey, label: "agent_allowlist", products: []folder{allowlist}})
		}
	} else {
		w.log.Warn("the agent's lanes are left out", "err", err)
	}
	daemon, err := fetchFapolicyd(ctx, o.cache)
	if err != nil {
		w.log.Warn("fapolicyd's lanes are left out", "err", err)
		return lanes, nil
	}
	return append(lanes, &fapolicydLane{w: w, d: daemon, rules: "allow_all"}, &fapolicydLane{w: w, d: daemon, rules: "sample_rules"}), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// startChild starts a program that dies with this one.
func startChild(logFile, name string, args ...string) (*started.Program, error) {
	return started.Start(logFile, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}, name, args...)
}
