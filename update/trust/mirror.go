package trust

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"bailey/internal/durable"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Mirror makes dir a mirror of what the view rests on, with the recovery policy: whoever follows the same repository finds there what this client has
// found, and believes it as little as any other mirror.
func (v *View) Mirror(ctx context.Context, dir string) error {
	meta := filepath.Join(dir, "metadata")
	for _, d := range []string{meta, filepath.Join(dir, "targets")} {
		if err := errors.Join(os.RemoveAll(d), os.MkdirAll(d, 0o700)); err != nil {
			return refuse(dir, ErrState, "%v", err)
		}
	}
	if err := forgetParts(filepath.Join(dir, downloadsDir)); err != nil {
		return refuse(dir, ErrState, "%v", err)
	}
	t, found, err := v.policyTarget(ctx)
	if err == nil && found {
		err = v.MirrorTarget(ctx, t, dir)
	}
	if err != nil {
		return err
	}
	s, trusted := v.look.c.state, v.look.trusted
	files := map[string]string{} // by the name that it is served as
	for n := trusted.Root.Signed.Version; n > 0; n-- {
		if _, err := os.Stat(s.rootPath(n)); err != nil {
			break // those before the agent's
		}
		files[fmt.Sprintf("%d.root.json", n)] = s.rootPath(n)
	}
	files[fmt.Sprintf("%d.%s.json", trusted.Snapshot.Signed.Version, metadata.SNAPSHOT)] = s.rolePath(metadata.SNAPSHOT)
	for role, m := range trusted.Targets {
		files[fmt.Sprintf("%d.%s.json", m.Signed.Version, role)] = s.rolePath(role)
	}
	files[timestampFile] = s.rolePath(metadata.TIMESTAMP)
	for name, kept := range files {
		text, err := s.read(kept, maxIndex)
		if err == nil {
			err = s.write(filepath.Join(meta, name), text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// MirrorTarget fetches a target into the place that Mirror's dir has for it.
func (v *View) MirrorTarget(ctx context.Context, t Target, dir string) error {
	path, err := v.Download(ctx, t, filepath.Join(dir, downloadsDir))
	if err != nil {
		return err
	}
	to := filepath.Join(dir, "targets", filepath.FromSlash(v.remote(t)))
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.Rename(path, to), durable.SyncDir(filepath.Dir(to))); err != nil {
		return refuse(dir, ErrState, "%v", err)
	}
	return nil
}

// downloadsDir is where downloads go on, below a directory of a client or of a mirror.
const downloadsDir = "downloads"

// partsFor is how long what was begun and never became whole is kept.
const partsFor = 24 * time.Hour

// forgetParts removes what nobody has gone on with.
func forgetParts(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if info, ierr := e.Info(); ierr == nil && time.Since(info.ModTime()) > partsFor {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
