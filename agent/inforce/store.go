package inforce

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"bailey/internal/durable"
)

// Digest returns the digest of an open program, in hexadecimal.
func Digest(program *os.File) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(program, 0, 1<<62)); err != nil {
		return "", fmt.Errorf("read the agent's program: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Keep puts a program under the name of its release, whole and on the disk. What is there already, and is that very program, stays.
func Keep(state, name string, program *os.File) error {
	if err := checkName(name); err != nil || name == "" {
		return errors.Join(err, errors.New("keep the agent's program: no name"))
	}
	releases := Releases(state)
	dir, tmp := filepath.Join(releases, name), filepath.Join(releases, ".new")
	if kept(filepath.Join(dir, Program), name) {
		return nil
	}
	err := errors.Join(os.MkdirAll(releases, 0o700), os.RemoveAll(tmp))
	if err == nil {
		err = os.Mkdir(tmp, 0o700)
	}
	if err == nil {
		err = copyProgram(program, filepath.Join(tmp, Program), name)
	}
	if err == nil {
		err = errors.Join(durable.SyncDir(tmp), os.RemoveAll(dir))
	}
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err == nil {
		err = errors.Join(durable.SyncDir(releases), durable.SyncDir(Dir(state)))
	}
	if err != nil {
		return fmt.Errorf("keep the agent's program %s: %w", name, err)
	}
	return nil
}

// kept reports whether the program at path is the one that the name says.
func kept(path, name string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	digest, err := Digest(f)
	return err == nil && Name(Version(name), digest) == name
}

// copyProgram copies a program, which must be the one that the name says.
func copyProgram(program *os.File, to, name string) error {
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, h), io.NewSectionReader(program, 0, 1<<62))
	if err = errors.Join(err, out.Chmod(0o755), out.Sync(), out.Close()); err != nil {
		return err
	}
	if Name(Version(name), hex.EncodeToString(h.Sum(nil))) != name {
		return errors.New("its bytes are others than when it was looked at")
	}
	return nil
}

// Prune removes the programs of all releases but those that are named.
func Prune(state string, keep ...string) error {
	entries, err := os.ReadDir(Releases(state))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !slices.Contains(keep, e.Name()) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(Releases(state), e.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("remove agents that are not needed any more: %w", err)
	}
	return nil
}
