package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bailey/internal/durable"
	"bailey/internal/strictjson"

	"golang.org/x/sys/unix"
)

// state is the directory that a client keeps:
//
//	roots/N.json    every root from the one that came with the agent to the newest that was verified
//	roles/NAME.json the newest verified file of each other role
//	state.json      the number and the digest of the newest root, and the floor of time
//	lock            held while a client works
type state struct{ dir string }

// known is the content of state.json.
type known struct {
	Root   int64  `json:"root"`
	Digest string `json:"digest"` // sha256 of that root's file
	Floor  int64  `json:"floor"`  // seconds since 1970 that have passed for certain: the newest signed time that was seen
	// Role is a digest of who could sign timestamps when the floor was raised. With other keys it does not count: a stolen key that signs the
	// year 2100 would refuse everything for ever.
	Role string `json:"role"`
}

const maxState = 4 << 10

func (s state) prepare() error {
	for _, dir := range []string{"roots", "roles"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// lock keeps other clients away until the returned function is called.
func (s state) lock() (func(), error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(refuse(s.dir, ErrInUse, "%v", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func (s state) rootPath(version int64) string {
	return filepath.Join(s.dir, "roots", fmt.Sprintf("%d.json", version))
}

// rolePath is only for names without a slash; what a role can be called is the guard's business, and hex makes it safe under any rules.
func (s state) rolePath(role string) string {
	if strings.ContainsFunc(role, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }) {
		role = fmt.Sprintf("=%x", role)
	}
	return filepath.Join(s.dir, "roles", role+".json")
}

// read returns a file of at most limit bytes, or nothing if it is not there.
func (s state) read(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > limit) {
		return nil, refuse(path, ErrState, "it is no file of at most %d bytes", limit)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, refuse(path, ErrState, "%v", err)
	}
	return text, nil
}

func (s state) write(path string, text []byte) error {
	if err := durable.Replace(path, text, 0o600); err != nil {
		return refuse(path, ErrState, "%v", err)
	}
	return nil
}

func (s state) known() (known, error) {
	path := filepath.Join(s.dir, "state.json")
	text, err := s.read(path, maxState)
	if err != nil || text == nil {
		return known{}, err
	}
	var k known
	if err := strictjson.Unmarshal(text, strictjson.Limits{Bytes: maxState, Depth: 2}, &k); err != nil {
		return known{}, refuse(path, ErrState, "%v", err)
	}
	return k, nil
}

func (s state) remember(k known) error {
	text, err := json.Marshal(k)
	if err != nil {
		return refuse(s.dir, ErrState, "%v", err)
	}
	return s.write(filepath.Join(s.dir, "state.json"), text)
}

// later returns the later of a clock and a floor.
func later(now time.Time, floor int64) time.Time {
	if f := time.Unix(floor, 0); f.After(now) {
		return f
	}
	return now
}
