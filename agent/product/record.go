package product

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"bailey/agent/product/grant"
	"bailey/internal/durable"
)

// Record is what the agent remembers of a product. The record file is the one pointer to the current release: release and
// grants change together, in one rename, or not at all.
type Record struct {
	Name     string `json:"name"`
	Release  string `json:"release"`            // VERSION-HASH, a folder below releases
	Previous string `json:"previous,omitempty"` // kept for going back
	// PreviousGrants are what the release before had been granted.
	PreviousGrants *grant.Grant `json:"previous_grants,omitempty"`
	// PreviousState and PreviousUID are where the release before has its state, and the user that it runs as, as long as it can be gone back to as it
	// was; zero where it would go on with the present ones.
	PreviousState string `json:"previous_state,omitempty"`
	PreviousUID   uint32 `json:"previous_uid,omitempty"`

	State     string            `json:"state,omitempty"`   // the folder of its state; empty for the first one
	UID       uint32            `json:"uid"`               // its own, also as group
	Enabled   bool              `json:"enabled"`           // runs whenever the agent does
	Removed   bool              `json:"removed,omitempty"` // only its state is kept
	Grants    grant.Grant       `json:"grants"`
	Settings  map[string]string `json:"settings,omitempty"` // the operator's; the manifest has the defaults
	Installed time.Time         `json:"installed"`
}

const (
	recordFile  = "record.json"
	releasesDir = "releases"
	stateDir    = "state"
	// What runs beside a product has its state in the one of the two that the product has not.
	secondStateDir = "state.2"
	logName        = "log"
	maxRecord      = 1 << 20
)

var stateDirs = []string{stateDir, secondStateDir}

// stateName is the folder of its state.
func (r Record) stateName() string { return cmp.Or(r.State, stateDir) }

// started is what of a record matters to a run that was started with it.
func (r Record) started() Record {
	r.Previous, r.PreviousGrants, r.PreviousState, r.PreviousUID, r.Installed = "", nil, "", 0, time.Time{}
	return r
}

// readRecord reads the record of the product folder dir, whose name the product must have.
func readRecord(dir string) (Record, error) {
	f, err := os.Open(filepath.Join(dir, recordFile))
	if err != nil {
		return Record{}, fmt.Errorf("read product record: %w", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return Record{}, fmt.Errorf("read product record: %w", err)
	}
	return parseRecord(b, filepath.Base(dir))
}

func parseRecord(b []byte, name string) (Record, error) {
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("read product record: %w", err)
	}
	switch {
	case r.Name != name:
		return Record{}, fmt.Errorf("read product record: it is of %q and lies in %q", r.Name, name)
	case r.UID == 0:
		return Record{}, errors.New("read product record: no user")
	case !r.Removed && !isRelease(r.Release):
		return Record{}, fmt.Errorf("read product record: %q is no release", r.Release)
	case r.Previous != "" && !isRelease(r.Previous):
		return Record{}, fmt.Errorf("read product record: %q is no release", r.Previous)
	case !isState(r.State) || !isState(r.PreviousState):
		return Record{}, fmt.Errorf("read product record: its state is in %q and was in %q", r.State, r.PreviousState)
	}
	return r, nil
}

func isState(name string) bool { return name == "" || slices.Contains(stateDirs, name) }

// isRelease says whether name can only be a folder below releases.
func isRelease(name string) bool {
	return name != "" && name[0] != '.' && filepath.Base(name) == name
}

// writeRecord replaces the record of dir: after a power cut there is the old one or the new one.
func writeRecord(dir string, r Record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write product record: %w", err)
	}
	if err := durable.Replace(filepath.Join(dir, recordFile), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write product record: %w", err)
	}
	return nil
}
