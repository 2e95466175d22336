package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"bailey/internal/durable"
	"bailey/update/bundle"
	"bailey/update/release"

	"golang.org/x/sys/unix"
)

// ContentDir is where a product finds its content, in its folder.
const ContentDir = "content"

// Below the staged directory of a stream, and below its base.
const (
	filesDir     = "files"  // of the bundle
	folderDir    = "folder" // the whole product
	manifestFile = "manifest.json"
)

func (c *Client) staged(id release.Stream) string {
	return filepath.Join(c.cfg.Dir, stagedDir, id.Role())
}

func (c *Client) base(id release.Stream) string { return filepath.Join(c.cfg.Dir, basesDir, id.Role()) }

// stage verifies what was fetched, unpacks it and puts it together with what belongs to it.
func (c *Client) stage(ctx context.Context, j *job) (outcome, error) {
	id, u := j.stream.id, &j.update
	dir := c.staged(id)
	files, folder := filepath.Join(dir, filesDir), filepath.Join(dir, folderDir)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(files, 0o700), os.Mkdir(folder, 0o700)); err != nil {
		return outcome{}, err
	}
	if err := c.stagingRoom(id, u); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return outcome{}, err
	}
	m, err := c.unpack(id, u, files)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return move(Fetch, "what was fetched is gone"), nil
	case err != nil && u.Base != "":
		return move(Fetch, "the delta does not fit: %v", err).with(func(u *Update) { u.NoDelta, u.Base = true, "" }), nil
	case errors.Is(err, unix.ENOSPC):
		return outcome{}, err
	case err != nil:
		return move(Refused, "%v", err), nil
	case !reflect.DeepEqual(m.Release, u.Offer.Release):
		return move(Refused, "the bundle says something else of itself than was signed for"), nil
	}
	if reason := c.unmet(id, &m.Release); reason != "" {
		return move(Superseded, "%s", reason), nil
	}
	text, err := json.Marshal(m)
	if err == nil {
		err = durable.Replace(filepath.Join(dir, manifestFile), text, 0o600)
	}
	if err != nil {
		return outcome{}, err
	}
	if err := c.compose(id, files, folder); errors.Is(err, ErrNotInstalled) {
		return move(Superseded, "its product is not installed any more"), nil
	} else if err != nil {
		return outcome{}, err
	}
	if err := durable.SyncFS(dir); err != nil { // the folder is what later steps begin with
		return outcome{}, err
	}
	return c.planned(ctx, j, folder)
}

// planned asks the host what the folder is.
func (c *Client) planned(ctx context.Context, j *job, folder string) (outcome, error) {
	id, u := j.stream.id, &j.update
	plan, err := c.cfg.Host.Plan(ctx, id.Product, folder)
	if err != nil {
		return move(Refused, "it is no product: %v", err), nil
	}
	if plan.Product != id.Product {
		return move(Refused, "it is the product %s", plan.Product), nil
	}
	if id.Kind == release.Code && plan.Version != u.version() {
		return move(Refused, "its product manifest says version %s", plan.Version), nil
	}
	previous, err := c.installed(id.Product)
	if err != nil {
		return outcome{}, err
	}
	edit := func(u *Update) { u.Release, u.Previous, u.Asks = plan.Name, previous.Name, plan.Asks }
	to := move(Rehearse, "it is staged")
	if !u.Approved && (j.stream.settings.Manual || len(plan.Asks) > 0) {
		to = move(Approve, "%s", c.wants(plan.Asks))
	}
	return to.with(edit), nil
}

// unpack makes the files of the release out of what was fetched.
func (c *Client) unpack(id release.Stream, u *Update, files string) (bundle.Manifest, error) {
	f, err := os.Open(u.Bundle)
	if err != nil {
		return bundle.Manifest{}, err
	}
	defer f.Close()
	if u.Base == "" {
		return bundle.Unpack(f, files, bundle.Limits{})
	}
	base, err := c.baseManifest(id)
	if err != nil {
		return bundle.Manifest{}, fmt.Errorf("%w: %w", bundle.ErrBase, err)
	}
	return bundle.ApplyDelta(f, filepath.Join(c.base(id), filesDir), base, files, bundle.Limits{})
}

// baseManifest is of the files that are kept for deltas.
func (c *Client) baseManifest(id release.Stream) (bundle.Manifest, error) {
	text, err := os.ReadFile(filepath.Join(c.base(id), manifestFile))
	if err != nil {
		return bundle.Manifest{}, err
	}
	return bundle.ParseManifest(text, bundle.Limits{})
}

// compose makes the product's folder: the code of the one, the content of the other.
func (c *Client) compose(id release.Stream, files, folder string) error {
	installed, err := c.cfg.Host.Installed(id.Product)
	content := filepath.Join(folder, ContentDir)
	if id.Kind == release.Code {
		if cerr := copyTree(files, folder, ""); cerr != nil {
			return cerr
		}
		if errors.Is(err, ErrNotInstalled) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, serr := os.Stat(content); serr == nil {
			return nil // it brings its own
		}
		old := filepath.Join(installed.Folder, ContentDir)
		if _, serr := os.Stat(old); errors.Is(serr, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(os.Mkdir(content, 0o755), copyTree(old, content, ""))
	}
	if err != nil {
		return err
	}
	if err := copyTree(installed.Folder, folder, ContentDir); err != nil {
		return err
	}
	return errors.Join(os.Mkdir(content, 0o755), copyTree(files, content, ""))
}

// copyTree copies files, directories and links from one directory into another, which is there, but for the one entry of its top that is named
// without.
func copyTree(from, to, without string) error {
	src, err := os.OpenRoot(from)
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenRoot(to)
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	defer func() { _ = dst.Close() }()
	err = fs.WalkDir(src.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == ".":
			return nil
		case path == without:
			return fs.SkipDir
		case d.IsDir():
			return dst.Mkdir(path, 0o755)
		case d.Type() == fs.ModeSymlink:
			target, err := src.Readlink(path)
			if err != nil {
				return err
			}
			return dst.Symlink(target, path)
		}
		return copyFile(src, dst, path)
	})
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

func copyFile(src, dst *os.Root, path string) error {
	in, err := src.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := dst.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, st.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
