package decide

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"bailey/products/allowlist/digest"
	"bailey/products/allowlist/policy"
	"bailey/sdk"
	"bailey/sdk/packagedb"

	"github.com/bmatcuk/doublestar/v4"
	"golang.org/x/sys/unix"
)

// fresh is how new a file must be to count as written by the package manager that is at work now.
const fresh = 15 * time.Minute

var errTime = errors.New("no time left")

// facts finds out about one question's file, when the policy asks.
type facts struct {
	d      *Decider
	ctx    context.Context
	q      *sdk.Question
	cancel context.CancelFunc
	wait   context.Context // ends a little before the deadline

	id       digest.Identity
	stat     *unix.Stat_t
	sums     *digest.Sums
	pkg      *policy.Package
	mismatch string // the file has another content than the package that owns its name recorded
	expected string
}

func (f *facts) done() {
	if f.cancel != nil {
		f.cancel()
	}
}

// identify stats the file once, and asks for more time where reading it will need more than there is.
func (f *facts) identify() error {
	if f.stat != nil {
		return nil
	}
	id, st, err := digest.Stat(f.q.FD())
	if err != nil {
		return err
	}
	f.id, f.stat = id, st
	return nil
}

// waiting returns the context for waits: it leaves time for the answer. It asks for an extension where reading a large
// file at 100 MB/s, slow enough for a busy machine, does not fit.
func (f *facts) waiting() context.Context {
	if f.wait != nil {
		return f.wait
	}
	f.wait = f.ctx
	deadline := f.q.Deadline()
	if deadline.IsZero() {
		return f.wait
	}
	left := time.Until(deadline)
	if need := 50*time.Millisecond + time.Duration(f.id.Size)*10; need > left && f.d.maxWait > left {
		if more := min(need, f.d.maxWait); f.q.Extend(more) == nil {
			left = more
		}
	}
	margin := min(max(left/8, 10*time.Millisecond), 50*time.Millisecond)
	f.wait, f.cancel = context.WithTimeoutCause(f.ctx, max(left-margin, 0), errTime)
	return f.wait
}

// SHA256 implements policy.Facts.
func (f *facts) SHA256() (string, error) {
	if err := f.read(packagedb.NoDigest); err != nil {
		return "", err
	}
	return hex.EncodeToString(f.sums.SHA256[:]), nil
}

func (f *facts) read(want packagedb.Algorithm) error {
	if f.sums != nil && (want == packagedb.NoDigest || f.sums.Of(want) != nil) {
		return nil
	}
	if err := f.identify(); err != nil {
		return err
	}
	if f.sums = f.d.digests.Known(f.id, want); f.sums != nil {
		return nil
	}
	sums, err := f.d.digests.Sums(f.waiting(), f.q.FD(), f.id, want)
	if err != nil {
		return fmt.Errorf("read the file: %w", err)
	}
	f.sums = sums
	return nil
}

// Package implements policy.Facts.
func (f *facts) Package() (policy.Package, error) {
	if f.pkg != nil {
		return *f.pkg, nil
	}
	if err := f.identify(); err != nil {
		return policy.Package{}, err
	}
	s, err := f.snapshot()
	if err != nil {
		return policy.Package{}, err
	}
	p, err := f.compare(s)
	if err != nil {
		return policy.Package{}, err
	}
	if !p.Verified && f.passing(p.Name != "") {
		p.Verified, p.Passing, p.Reason = true, true, "a package manager is at work"
		f.mismatch = ""
	}
	f.pkg = &p
	return p, nil
}

// snapshot waits for the first read of the package databases.
func (f *facts) snapshot() (*packagedb.Snapshot, error) {
	if s := f.d.db.Snapshot(); s != nil {
		return s, nil
	}
	select {
	case <-f.d.loaded:
	case <-f.waiting().Done():
		return nil, fmt.Errorf("the package databases are being read: %w", context.Cause(f.waiting()))
	}
	if s := f.d.db.Snapshot(); s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("the package databases could not be read: %w", *f.d.loadError.Load())
}

// compare looks the path up and compares the recorded digest with the file's.
func (f *facts) compare(s *packagedb.Snapshot) (policy.Package, error) {
	e, ok := s.Lookup(f.q.GetFile().GetPath())
	if !ok {
		return policy.Package{Reason: "no package owns it"}, nil
	}
	p := policy.Package{Name: e.Package.Name}
	rootOnly := packagedb.RootOnly(f.stat.Uid, f.stat.Mode)
	if e.Script {
		// dpkg runs these from its own directory and records nothing about them; only root can have put them there.
		p.Verified, p.Passing = rootOnly, true
		p.Reason = "a maintainer script"
		return p, nil
	}
	if e.Digest.Algorithm.Size() == 0 {
		p.Reason = "package " + p.Name + " recorded no digest of it"
		return p, nil
	}
	if err := f.read(e.Digest.Algorithm); err != nil {
		return p, err
	}
	switch weak := e.Digest.Algorithm == packagedb.MD5 || e.Digest.Algorithm == packagedb.SHA1; {
	case !e.Digest.Equal(f.sums.Of(e.Digest.Algorithm)):
		p.Reason = "its content is not what package " + p.Name + " recorded"
		f.mismatch, f.expected = p.Name, e.Digest.String()
	case weak && !rootOnly:
		p.Reason = "package " + p.Name + " recorded only " + e.Digest.Algorithm.String() + " of it, and others than root may write it"
	default:
		p.Verified = true
	}
	return p, nil
}

// passing reports whether the file may be one that a package manager has just written: new, root's alone, under a name
// that a package owns or could bring, and a transaction not yet in the snapshot. Users cannot make such files; who is root
// can do without this door.
func (f *facts) passing(owned bool) bool {
	age := time.Since(time.Unix(0, f.id.CTime))
	return age < fresh && packagedb.RootOnly(f.stat.Uid, f.stat.Mode) &&
		(owned || couldBePackaged(f.q.GetFile().GetPath())) && f.d.db.InTransaction()
}

// packageTrees are where packages bring programs to, and where package managers put the scripts that they run.
var packageTrees = [...]string{"/usr/**", "/{bin,sbin,lib,lib32,lib64,libx32}/**", "/etc/**", "/opt/**", "/boot/**", "/var/lib/**", "/tmp/*.config.*", "/var/tmp/rpm-tmp.*"}

func couldBePackaged(path string) bool {
	for _, tree := range packageTrees {
		if doublestar.MatchUnvalidated(tree, path) {
			return true
		}
	}
	return false
}

// stable reports whether the file is still the one that was judged.
func (f *facts) stable() bool {
	if f.stat == nil {
		return true
	}
	now, _, err := digest.Stat(f.q.FD())
	return err == nil && now == f.id
}

// runnable reports whether a file that is opened could be meant to be run: an ELF file or a script.
func (f *facts) runnable() (bool, error) {
	var head [4]byte
	n, err := f.q.Reader().ReadAt(head[:], 0)
	if n < 2 && err != nil && f.q.FD() < 0 {
		return false, err
	}
	return string(head[:n]) == "\x7fELF" || (n >= 2 && string(head[:2]) == "#!"), nil
}
