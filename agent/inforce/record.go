package inforce

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"bailey/internal/durable"
)

// Program is the name of the agent's program, in a release's files and in its directory here.
const Program = "bailey"

// Record is what is known of the agent's releases. The zero value says that none came by an update.
type Record struct {
	Name     string `json:"name,omitempty"`     // the release in force: VERSION-HASH
	Previous string `json:"previous,omitempty"` // the release before it
	Earlier  string `json:"earlier,omitempty"`  // the one before that, until Name is proven
	Proven   bool   `json:"proven"`             // it did no harm while it was watched
	Ended    bool   `json:"ended"`              // not proven yet, it ended because it was told to
	Gone     string `json:"gone,omitempty"`     // the release that was gone back from last
	Why      string `json:"why,omitempty"`      // it was
	Trying   string `json:"trying,omitempty"`   // the release that is being rehearsed
	Tries    int    `json:"tries,omitempty"`    // how often that began
	Before   Before `json:"before,omitzero"`    // how the machine was before Name was put in force
}

// Before is what a release that is not proven is compared with.
type Before struct {
	Keeper   uint64            `json:"keeper,omitempty"`   // when the keeper started, in nanoseconds since boot: the counts are its
	Restarts uint64            `json:"restarts,omitempty"` // of agents
	Bypasses uint64            `json:"bypasses,omitempty"` // how many times the keeper answered in an agent's place
	Health   map[string]string `json:"health,omitempty"`   // by component
	Running  []string          `json:"running,omitempty"`  // products
}

// Dir is where everything of the agent's own releases is.
func Dir(state string) string { return filepath.Join(state, "agent") }

// Releases is where the programs are, each in a directory of its name.
func Releases(state string) string { return filepath.Join(Dir(state), "releases") }

// Path is the program of a release.
func Path(state, name string) string { return filepath.Join(Releases(state), name, Program) }

func recordPath(state string) string { return filepath.Join(Dir(state), "current") }

// Name is the name of a release: its version and the digest of its program, in hexadecimal.
func Name(version, digest string) string { return version + "-" + digest[:min(len(digest), 12)] }

// Version is the version in a release's name.
func Version(name string) string {
	i := strings.LastIndexByte(name, '-')
	return name[:max(i, 0)]
}

// Read reads the record. One that is not there is the zero value.
func Read(state string) (Record, error) {
	var r Record
	text, err := os.ReadFile(recordPath(state))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil {
		err = errors.Join(checkName(r.Name), checkName(r.Previous), checkName(r.Earlier))
	}
	if err != nil {
		return Record{}, fmt.Errorf("read which agent is in force: %w; remove %s to begin anew", err, recordPath(state))
	}
	return r, nil
}

// checkName refuses what would be another place than a directory of Releases.
func checkName(name string) error {
	if name != "" && (name != filepath.Base(name) || name[0] == '.') {
		return fmt.Errorf("%.80q is the name of no release", name)
	}
	return nil
}

// Write puts the record on the disk.
func Write(state string, r *Record) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.MkdirAll(Dir(state), 0o700)
	}
	if err == nil {
		err = durable.Replace(recordPath(state), append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write which agent is in force: %w", err)
	}
	return nil
}

// GoBack is the record after the release in force was gone back from.
func (r *Record) GoBack(why string) Record {
	return Record{Name: r.Previous, Previous: r.Earlier, Proven: true, Gone: r.Name, Why: why}
}
