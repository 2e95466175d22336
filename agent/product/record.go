package product

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	PreviousGrants *grant.Grant      `json:"previous_grants,omitempty"`
	UID            uint32            `json:"uid"`               // its own, also as group
	Enabled        bool              `json:"enabled"`           // runs whenever the agent does
	Removed        bool              `json:"removed,omitempty"` // only its state is kept
	Grants         grant.Grant       `json:"grants"`
	Settings       map[string]string `json:"settings,omitempty"` // the operator's; the manifest has the defaults
	Installed      time.Time         `json:"installed"`
}

const (
	recordFile  = "record.json"
	releasesDir = "releases"
	stateDir    = "state"
	logName     = "log"
	maxRecord   = 1 << 20
)

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
	}
	return r, nil
}

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
