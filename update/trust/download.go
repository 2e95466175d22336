package trust

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"bailey/internal/durable"

	"golang.org/x/sys/unix"
)

// PartSuffix is what the name of a download ends in until it is whole.
const PartSuffix = ".part"

// Download fetches a target into dir and returns its path there: a name made of its digest. What was interrupted goes on where it was. The
// file appears under its name when it is whole, verified and on the disk. A mirror that sends something else is left for the next.
func (v *View) Download(ctx context.Context, t Target, dir string) (string, error) {
	if !hexDigest.MatchString(t.SHA256) || t.Length < 0 {
		return "", refuse(t.Path, ErrMalformed, "it has no sha256")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", refuse(dir, ErrState, "%v", err)
	}
	name := filepath.Join(dir, t.SHA256)
	if sum, n, err := digestOf(name); err == nil && n == t.Length && sum == t.SHA256 {
		return name, nil
	}
	if err := v.room(t, dir, name+PartSuffix); err != nil {
		return "", err
	}
	var all error
	for i := range v.look.c.mirrors {
		m := (v.look.mirror + i) % len(v.look.c.mirrors)
		from := v.look.c.mirrors[m].targets
		err := v.from(ctx, from, t, name)
		if err == nil {
			from.sound()
			return name, nil
		}
		all = errors.Join(all, from.missed(ctx, err, ErrUnavailable, ErrSlow))
		if ctx.Err() != nil || errors.Is(err, ErrState) {
			break
		}
	}
	return "", all
}

// room refuses a download that would leave too little of the file system.
func (v *View) room(t Target, dir, part string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return refuse(dir, ErrState, "%v", err)
	}
	need := t.Length
	if info, err := os.Stat(part); err == nil {
		need -= info.Size()
	}
	if free := int64(fs.Bavail) * fs.Bsize; free-need < v.look.c.cfg.LeaveFree {
		return refuse(t.Path, ErrSpace, "%d bytes are free, %d are needed, and %d must stay", free, need, v.look.c.cfg.LeaveFree)
	}
	return nil
}

// from fetches a target from one mirror. What another left unfinished may be spoilt: then it is fetched once more from the beginning.
func (v *View) from(ctx context.Context, s source, t Target, name string) error {
	resumed, err := v.part(ctx, s, t, name+PartSuffix)
	if errors.Is(err, ErrMismatch) && resumed {
		_, err = v.part(ctx, s, t, name+PartSuffix)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(os.Rename(name+PartSuffix, name), durable.SyncDir(filepath.Dir(name))); err != nil {
		return refuse(name, ErrState, "%v", err)
	}
	return nil
}

// part makes path the whole target, or leaves what it got for the next time if nothing was wrong with it.
func (v *View) part(ctx context.Context, s source, t Target, path string) (resumed bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, refuse(path, ErrState, "%v", err)
	}
	defer func() {
		if cerr := f.Close(); cerr != nil && err == nil {
			err = refuse(path, ErrState, "%v", cerr)
		}
		if errors.Is(err, ErrMismatch) || errors.Is(err, ErrSize) {
			_ = os.Remove(path)
		}
	}()
	h := sha256.New()
	have, err := io.Copy(h, io.LimitReader(f, t.Length+1))
	if err != nil {
		return false, refuse(path, ErrState, "%v", err)
	}
	if have > t.Length {
		have = 0
	}
	if have < t.Length || t.Length == 0 {
		if have, err = v.rest(ctx, s, t, f, h, have); err != nil {
			return have > 0, err
		}
	}
	if hex.EncodeToString(h.Sum(nil)) != t.SHA256 {
		return have > 0, refuse(t.Path, ErrMismatch, "its sha256 is another")
	}
	if err := f.Sync(); err != nil {
		return have > 0, refuse(path, ErrState, "%v", err)
	}
	return have > 0, nil
}

// rest fetches what comes after the first have bytes. It returns how many of these were used.
func (v *View) rest(ctx context.Context, s source, t Target, f *os.File, h hash.Hash, have int64) (int64, error) {
	in, err := begin(ctx, s, v.remote(t), have, "", v.look.c.cfg.Pace)
	if err != nil {
		return have, err
	}
	defer in.Close()
	if in.from != have {
		have = 0
	}
	if have == 0 {
		h.Reset()
	}
	if _, err = f.Seek(have, io.SeekStart); err == nil {
		err = f.Truncate(have)
	}
	if err != nil {
		return have, refuse(f.Name(), ErrState, "%v", err)
	}
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(in, t.Length-have))
	var r *Refusal
	switch {
	case errors.As(err, &r):
		return have, err
	case err != nil:
		return have, refuse(f.Name(), ErrState, "%v", err)
	case have+n < t.Length:
		return have, refuse(t.Path, ErrUnavailable, "it ends after %d of %d bytes", have+n, t.Length)
	}
	if extra, err := in.Read(make([]byte, 1)); extra > 0 || err == nil {
		return have, refuse(t.Path, ErrSize, "more than %d bytes", t.Length)
	}
	return have, nil
}

// remote is the name of a target's file: with its digest, where one name always means the same bytes.
func (v *View) remote(t Target) string {
	if !v.look.trusted.Root.Signed.ConsistentSnapshot {
		return t.Path
	}
	dir, file := path.Split(t.Path)
	return strings.TrimPrefix(dir+fmt.Sprintf("%s.%s", t.SHA256, file), "/")
}

func digestOf(path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), n, err
}
