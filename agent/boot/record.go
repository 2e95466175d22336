package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"bailey/internal/durable"
)

// FileName is the record's, in the state directory.
const FileName = "boot.json"

const maxRecord = 1 << 20

// Record is what is remembered of boots. The zero value is that of a machine without a past.
type Record struct {
	Boot  string    `json:"boot"`            // the id of the boot in course, or of the last one in which an agent ran
	Began time.Time `json:"began"`           // when an agent first ran in it
	Good  bool      `json:"good,omitempty"`  // it ran for long enough
	Ended bool      `json:"ended,omitempty"` // the agent ended in it in order, and was not started again

	Unclean  int               `json:"unclean,omitempty"`  // boots in a row that did not go well
	LastGood map[string]string `json:"last_good"`          // what was in force when a boot was last good: product to release; null: none ever was
	Back     []Back            `json:"back,omitempty"`     // what was taken back because of the last unclean boot; until a boot is good
	Suspects map[string]string `json:"suspects,omitempty"` // what was in force when safe mode was entered; empty: it is not

	Safe       string `json:"safe,omitempty"`       // why this boot is in safe mode; empty: it is not
	Distrusted string `json:"distrusted,omitempty"` // the platform whose sensors are off, only in safe mode; empty: none
	Next       bool   `json:"next,omitempty"`       // the next boot is to be in safe mode, by the operator's word

	Trying string         `json:"trying,omitempty"` // the release that is being rehearsed
	Downs  map[string]int `json:"downs,omitempty"`  // how often the machine went down while a release was rehearsed
}

// Back is a product that went back to its release before.
type Back struct {
	Product string `json:"product"`
	From    string `json:"from"`
	To      string `json:"to"`
}

// ErrDamaged is the class of a record that is there and cannot be read.
var ErrDamaged = errors.New("the record of boots is damaged")

// Read reads the record in a state directory. None is the zero Record, and so is one that is damaged, with ErrDamaged.
func Read(state string) (Record, error) {
	path := filepath.Join(state, FileName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, fmt.Errorf("read the record of boots: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return Record{}, fmt.Errorf("read the record of boots: %w", err)
	}
	return parse(text, path)
}

func parse(text []byte, path string) (Record, error) {
	var r Record
	if err := json.Unmarshal(text, &r); err != nil {
		return Record{}, fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	if r.Unclean < 0 {
		return Record{}, fmt.Errorf("%w: %s: %d unclean boots", ErrDamaged, path, r.Unclean)
	}
	return r, nil
}

// Write replaces the record in a state directory.
func Write(state string, r Record) error {
	text, err := json.MarshalIndent(&r, "", " ")
	if err == nil {
		err = durable.Replace(filepath.Join(state, FileName), append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the record of boots: %w", err)
	}
	return nil
}

// Forget drops what was counted, by an operator's word: the next boot is an ordinary one.
func (r *Record) Forget() {
	r.Unclean, r.Suspects, r.Safe, r.Distrusted, r.Back, r.Next, r.Downs = 0, nil, "", "", nil, false, nil
}

// SensorsOff is why this boot is without sensors; empty: it is not.
func (r Record) SensorsOff() string {
	if r.Distrusted == "" {
		return ""
	}
	return "boots in safe mode did not end well either"
}

// clone copies r, so that it can be changed while r is read.
func (r Record) clone() Record {
	r.LastGood, r.Suspects, r.Downs = maps.Clone(r.LastGood), maps.Clone(r.Suspects), maps.Clone(r.Downs)
	r.Back = append([]Back(nil), r.Back...)
	return r
}
