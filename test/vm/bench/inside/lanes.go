package main

import "fmt"

// lane is a state of the machine that work is measured in. stop ends what start began, also where that failed.
type lane interface {
	start() error
	stop() error
	hooks() bool  // BPF programs run in it
	builds() bool // something is promised of go build in it, which takes long
}

// lane returns the lane of a name.
func (w *world) lane(name string) (lane, error) {
	a := &agentLane{w: w}
	switch name {
	case "none":
		return noLane{}, nil
	case "none_again":
		return noLane{again: true}, nil
	case "agent_0":
	case "agent_1", "agent_1_cached", "agent_8", "agent_8_cached":
		if _, err := fmt.Sscanf(name, "agent_%d", &a.products); err != nil {
			return nil, fmt.Errorf("read the name of the lane %s: %w", name, err)
		}
		a.cached = name[len("agent_1"):] == "_cached"
	case "guard":
		a.guard = true
	case "rules":
		a.rules = true
	case "guard_rules":
		a.guard, a.rules = true, true
	case "fapolicyd":
		return &fapolicydLane{w: w}, nil
	case "audit_exec":
		return &auditLane{calls: "execve"}, nil
	case "audit_open":
		return &auditLane{calls: "openat"}, nil
	default:
		return nil, fmt.Errorf("there is no lane %q", name)
	}
	return a, nil
}

// noLane is the machine as it is.
type noLane struct{ again bool }

func (noLane) start() error   { return nil }
func (noLane) stop() error    { return nil }
func (noLane) hooks() bool    { return false }
func (l noLane) builds() bool { return !l.again }
