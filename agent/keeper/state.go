package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What a keeper does.
const (
	Starting = "starting" // an agent is being started; the keeper answers
	Serving  = "serving"  // the agent answers
	Bypass   = "bypass"   // the agent cannot answer, and the keeper does
)

// State is what the keeper writes into its run directory whenever it changes: for those who find no agent to ask.
type State struct {
	State    string    `json:"state"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`
	Keeper   int       `json:"keeper_pid"`
	Agent    int       `json:"agent_pid,omitempty"`
	Restarts uint64    `json:"restarts"`
	Bypassed uint64    `json:"bypassed"` // questions, when this was written
}

var (
	errUpgrading = errors.New("another upgrade is under way")
	errEnding    = errors.New("the agent is ending")
)

// StatePath is where the keeper of a run directory writes its State.
func StatePath(run string) string { return filepath.Join(run, "keeper.json") }

// ReadState reads what the keeper of a run directory wrote last.
func ReadState(run string) (State, error) {
	var s State
	text, err := os.ReadFile(StatePath(run))
	if err != nil {
		return s, fmt.Errorf("read the keeper's state: %w", err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("read the keeper's state in %s: %w", StatePath(run), err)
	}
	return s, nil
}

// statusText is the state in one line for people.
func statusText(state, reason string) string {
	text := map[string]string{
		Starting: "starting an agent; meanwhile the keeper answers by default", Serving: "the agent answers", Bypass: "the keeper answers by default",
	}[state]
	if reason != "" {
		text += ": " + reason
	}
	return strings.ReplaceAll(text, "\n", " ")
}

// say writes down what the keeper does now. It is not called on the answerer's thread: writing opens files.
func (k *Keeper) say(state, reason string) {
	if k.ending {
		return
	}
	if k.state.State != state || k.state.Reason != reason {
		k.state.Since = time.Now()
	}
	k.state.State, k.state.Reason = state, reason
	k.state.Keeper = os.Getpid()
	k.service.status(statusText(state, reason))
	k.state.Restarts, k.state.Bypassed = k.board.Restarts.Load(), k.board.Bypassed.Load()
	text, err := json.Marshal(k.state)
	if err != nil {
		return
	}
	path := StatePath(k.cfg.Run)
	if err := os.MkdirAll(k.cfg.Run, 0o755); err != nil {
		return // the agent will say so
	}
	if os.WriteFile(path+".new", append(text, '\n'), 0o644) == nil {
		_ = os.Rename(path+".new", path)
	}
}
