package brake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"bailey/agent/health"
	"bailey/internal/durable"
)

// Record says that a product is braked, and why.
type Record struct {
	Product string    `json:"product"`
	Release string    `json:"release"` // whose denies they were
	Since   time.Time `json:"since"`
	Rule    string    `json:"rule"` // package_files, files, critical or execs
	Reason  string    `json:"reason"`
	Files   []string  `json:"files,omitempty"` // some of those that it denied
}

// stateFile is the file with the braked products.
type stateFile struct {
	Version int      `json:"version"`
	Braked  []Record `json:"braked"`
}

const (
	stateVersion = 1
	maxState     = 1 << 20
	maxRecords   = 1024
	badSuffix    = ".bad"
)

// load reads the braked products. What cannot be read is put aside under another name and said.
func (b *Brake) load() []Record {
	entry := health.Entry{Component: "brake.state", Status: health.OK, Summary: "braked products are remembered"}
	defer func() { b.cfg.Health.Set(entry) }()
	text, err := readState(b.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var out []Record
	if err == nil {
		out, err = parse(text)
	}
	if err == nil {
		return out
	}
	bad := b.cfg.File + badSuffix
	entry.Status = health.Degraded
	entry.Summary = fmt.Sprintf("%s cannot be read, so no product is braked: %v", b.cfg.File, err)
	entry.Remedy = fmt.Sprintf("look at %s, and stop (`bailey product stop NAME`) what was braked for good reason", bad)
	if err := os.Rename(b.cfg.File, bad); err != nil {
		entry.Remedy = fmt.Sprintf("look at %s, which could not be put aside: %v", b.cfg.File, err)
	}
	b.cfg.Log.Error("braked products are not known", "file", b.cfg.File, "err", err)
	return nil
}

func readState(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read braked products: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, fmt.Errorf("read braked products: %w", err)
	}
	if len(text) > maxState {
		return nil, fmt.Errorf("read braked products: more than %d bytes", maxState)
	}
	return text, nil
}

// parse reads what save writes.
func parse(text []byte) ([]Record, error) {
	var s stateFile
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("parse braked products: %w", err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("parse braked products: version %d, known is %d", s.Version, stateVersion)
	}
	if len(s.Braked) > maxRecords {
		return nil, fmt.Errorf("parse braked products: %d of them", len(s.Braked))
	}
	name, err := regexp.Compile(`^[a-z][a-z0-9-]{0,31}$`)
	if err != nil {
		return nil, fmt.Errorf("parse braked products: %w", err)
	}
	seen := make(map[string]bool)
	for _, r := range s.Braked {
		if !name.MatchString(r.Product) {
			return nil, fmt.Errorf("parse braked products: %q is no product's name", r.Product)
		}
		if seen[r.Product] {
			return nil, fmt.Errorf("parse braked products: %s is there twice", r.Product)
		}
		if r.Reason == "" {
			return nil, fmt.Errorf("parse braked products: %s without a reason", r.Product)
		}
		seen[r.Product] = true
	}
	return s.Braked, nil
}

// save writes who is braked: after a power cut there is the old file or the new one. Caller holds change.
func (b *Brake) save() error {
	s := stateFile{Version: stateVersion, Braked: []Record{}}
	b.mu.Lock()
	for _, w := range b.products {
		if w.braked != nil {
			s.Braked = append(s.Braked, *w.braked)
		}
	}
	b.mu.Unlock()
	slices.SortFunc(s.Braked, func(x, y Record) int { return strings.Compare(x.Product, y.Product) })
	entry := health.Entry{Component: "brake.state", Status: health.OK, Summary: "braked products are remembered"}
	err := write(b.cfg.File, s)
	if err != nil {
		entry.Status = health.Failed
		entry.Summary = "which products are braked is not remembered over a restart of the agent: " + err.Error()
		entry.Remedy = fmt.Sprintf("make room in %s and make it writable", filepath.Dir(b.cfg.File))
	}
	b.cfg.Health.Set(entry)
	return err
}

func write(path string, s stateFile) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write braked products: %w", err)
	}
	if err := durable.Replace(path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write braked products: %w", err)
	}
	return nil
}
