package operatorkey

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"bailey/agent/unlock/token"

	"golang.org/x/sys/unix"
)

// PublicSuffix ends the names of the files in a directory of keys that are read.
const PublicSuffix = ".pub"

const (
	maxPublicFile = 64 << 10
	maxKeys       = 256
)

// Trusted is the set of keys whose tokens count.
type Trusted []Public

// Find returns the key that a token names.
func (t Trusted) Find(id token.KeyID) (Public, bool) {
	for _, p := range t {
		if p.ID() == id {
			return p, true
		}
	}
	return Public{}, false
}

// Read returns the keys in lines and, if dir is not empty, those in its files that end in PublicSuffix, each key once. A line
// that begins with # says nothing. What cannot be read is an error and no key less: err names it, and the others are returned.
// A directory that is not there has no keys.
func Read(lines []string, dir string) (Trusted, error) {
	var out Trusted
	var errs []error
	add := func(where, line string) {
		p, err := ParsePublic(line)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
		case len(out) >= maxKeys:
			errs = append(errs, fmt.Errorf("%s: more than %d keys", where, maxKeys))
		case !slices.ContainsFunc(out, func(o Public) bool { return o.Key.Equal(p.Key) }):
			out = append(out, p)
		}
	}
	for _, l := range lines {
		add("configuration", l)
	}
	if dir == "" {
		return out, errors.Join(errs...)
	}
	names, err := publicFiles(dir)
	if err != nil {
		errs = append(errs, err)
	}
	for _, name := range names {
		text, err := readPublic(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, l := range keyLines(text) {
			add(name, l)
		}
	}
	return out, errors.Join(errs...)
}

// ReadFile returns the keys in one file, whoever owns it: for somebody who looks at a token, and not for an agent.
func ReadFile(path string) (Trusted, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the operator's key: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPublicFile))
	if err != nil {
		return nil, fmt.Errorf("read the operator's key: %w", err)
	}
	var out Trusted
	for _, l := range keyLines(string(text)) {
		p, err := ParsePublic(l)
		if err != nil {
			return nil, fmt.Errorf("read the operator's key in %s: %w", path, err)
		}
		out = append(out, p)
	}
	return out, nil
}

// keyLines returns the lines that are to be keys.
func keyLines(text string) []string {
	var out []string
	for l := range strings.Lines(text) {
		if l = strings.TrimRight(l, "\r\n"); l != "" && !strings.HasPrefix(l, "#") {
			out = append(out, l)
		}
	}
	return out
}

func publicFiles(dir string) ([]string, error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = onlyRoots(info)
	}
	var entries []os.DirEntry
	if err == nil {
		entries, err = os.ReadDir(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the operators' keys in %s: %w", dir, err)
	}
	var out []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), PublicSuffix) && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, nil
}

func readPublic(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("read the operators' keys: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a file")
	}
	if err == nil {
		err = onlyRoots(info)
	}
	if err != nil {
		return "", fmt.Errorf("read the operators' keys in %s: %w", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPublicFile+1))
	if err == nil && len(text) > maxPublicFile {
		err = fmt.Errorf("it has more than %d bytes", maxPublicFile)
	}
	if err != nil {
		return "", fmt.Errorf("read the operators' keys in %s: %w", path, err)
	}
	return string(text), nil
}

// onlyRoots refuses what somebody else than root, or than this process's user, can write.
func onlyRoots(info fs.FileInfo) error {
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others can write it (mode %04o): chmod go-w", info.Mode().Perm())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to uid %d: chown root", st.Uid)
	}
	return nil
}
