package inforce

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"bailey/update/release"

	"golang.org/x/sys/unix"
)

// Choose returns the program that the first agent of a service is started from; empty is the keeper's own, which is of the version own. It writes
// down what it decides before the program runs. The error says why the one that was in force is not chosen.
func Choose(state, own string) (path string, err error) {
	r, err := Read(state)
	if err != nil || r.Name == "" {
		return "", err
	}
	if Newer(own, Version(r.Name)) { // a package brought it
		return "", Write(state, &Record{})
	}
	var gone error
	if !r.Proven && !r.Ended {
		gone = notStarted(r.Name, errUnclean)
		r = r.GoBack(errUnclean.Error())
		if err := Write(state, &r); err != nil {
			return "", errors.Join(gone, err)
		}
	}
	if r.Name == "" || Version(r.Name) == trimmed(own) || Newer(own, Version(r.Name)) {
		return "", gone // the keeper's own is the same, and nearer
	}
	path = Path(state, r.Name)
	if err := sound(state, path); err != nil {
		return "", errors.Join(gone, notStarted(r.Name, err))
	}
	if !r.Proven { // from here on it must end in order again
		r.Ended = false
		if err := Write(state, &r); err != nil {
			return "", notStarted(r.Name, err)
		}
	}
	return path, gone
}

// errUnclean is why a release that is not proven is not started again.
var errUnclean = errors.New("it was not proven yet when the machine, or the service, ended without being told to")

func notStarted(name string, why error) error {
	return fmt.Errorf("the agent %s is not started: %w", name, why)
}

// trimmed is a build's version without the v of its tag.
func trimmed(version string) string { return strings.TrimPrefix(version, "v") }

// Newer reports whether a is known to be a later version than b.
func Newer(a, b string) bool {
	v, err := release.ParseVersion(trimmed(a))
	w, werr := release.ParseVersion(trimmed(b))
	return err == nil && werr == nil && v.Compare(w) > 0
}

// sound is nil if nobody but root can have changed the program.
func sound(state, path string) error {
	for _, p := range []string{state, Dir(state), Releases(state), filepath.Dir(path), path} {
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return fmt.Errorf("look at %s: %w", p, err)
		}
		kind := uint32(unix.S_IFDIR)
		if p == path {
			kind = unix.S_IFREG
		}
		switch {
		case st.Mode&unix.S_IFMT != kind:
			return fmt.Errorf("%s is not what it should be", p)
		case int(st.Uid) != os.Geteuid():
			return fmt.Errorf("%s is not root's", p)
		case st.Mode&0o022 != 0:
			return fmt.Errorf("%s can be written by others than root", p)
		case p == path && st.Mode&0o100 == 0:
			return errors.New("it cannot be executed")
		}
	}
	return nil
}
