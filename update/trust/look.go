package trust

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

// look is one look at one mirror.
type look struct {
	c       *Client
	mirror  int
	trusted *trustedmetadata.TrustedMetadata
	known   known
	rested  bool // no newer root was asked for, because there was none a moment ago
}

func (l *look) all(ctx context.Context) (*View, error) {
	if err := l.keptRoots(); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{l.newRoots, l.timestamp, l.snapshot, l.targets} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return &View{look: l, At: l.trusted.RefTime}, nil
}

// keptRoots begins at the root that came with the agent and follows the kept ones. Where one is missing or damaged, because of the disk or because
// another agent came with a later root, the mirror can help: the newest root that was verified is known by its digest, so that no other takes its
// place.
func (l *look) keptRoots() error {
	var err error
	if l.known, err = l.c.state.known(); err != nil {
		return err
	}
	if _, err := guard(metadata.ROOT, l.c.cfg.Root, l.c.cfg.Rules); err != nil {
		return err
	}
	err = guarded("root.json", func() error {
		l.trusted, err = trustedmetadata.New(l.c.cfg.Root)
		return err
	})
	if err != nil {
		return err
	}
	first := l.trusted.Root.Signed.Version
	kept, err := l.c.state.read(l.c.state.rootPath(first), maxRole)
	if err != nil {
		return err
	}
	if kept == nil {
		if err := l.c.state.write(l.c.state.rootPath(first), l.c.cfg.Root); err != nil {
			return err
		}
	} else if !slices.Equal(kept, l.c.cfg.Root) {
		return refuse(l.c.cfg.Dir, ErrState, "it belongs to another repository than the root that came with the agent")
	}
	for v := first + 1; ; v++ {
		text, err := l.c.state.read(l.c.state.rootPath(v), maxRole)
		if err != nil {
			return err
		}
		if text == nil || l.root(text) != nil {
			break
		}
		if err := l.verified(v, text); err != nil {
			return err
		}
	}
	if first >= l.known.Root {
		l.known.Root, l.known.Digest = first, digest(l.c.cfg.Root)
	}
	l.setTime()
	return nil
}

// setTime sets the time by which things expire.
func (l *look) setTime() {
	floor := l.c.cfg.Built.Unix()
	if l.known.Role == l.bearers() {
		floor = max(floor, l.known.Floor)
	}
	l.trusted.RefTime = later(l.c.cfg.Now().UTC(), floor)
}

// bearers is a digest of who can sign the timestamp.
func (l *look) bearers() string {
	text, err := json.Marshal(l.trusted.Root.Signed.Roles[metadata.TIMESTAMP].KeyIDs)
	if err != nil {
		return ""
	}
	return digest(text)
}

// root takes the next root, if it is one.
func (l *look) root(text []byte) error {
	if _, err := guard(metadata.ROOT, text, l.c.cfg.Rules); err != nil {
		return err
	}
	if next := l.trusted.Root.Signed.Version + 1; next == l.known.Root && digest(text) != l.known.Digest {
		return refuse("root.json", ErrState, "another root %d was verified before, and it is not there any more", next)
	}
	return guarded("root.json", func() error {
		_, err := l.trusted.UpdateRoot(text)
		return err
	})
}

// newRoots follows the chain of roots to its end.
func (l *look) newRoots(ctx context.Context) error {
	if l.c.atRoot == l.trusted.Root.Signed.Version {
		if rest := l.c.cfg.Now().Sub(l.c.noRoot[l.mirror]); rest >= 0 && rest < rootRest {
			l.rested = true
			return nil
		}
	}
	for range rootsAtOnce {
		next := l.trusted.Root.Signed.Version + 1
		text, _, err := small(ctx, l.c.mirrors[l.mirror].metadata, fmt.Sprintf("%d.root.json", next), maxRole, "", l.c.cfg.Pace)
		if errors.Is(err, ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
		if err := l.root(text); err != nil {
			return err
		}
		if err := l.c.state.write(l.c.state.rootPath(next), text); err != nil {
			return err
		}
		if err := l.verified(next, text); err != nil {
			return err
		}
	}
	v := l.trusted.Root.Signed.Version
	if v < l.known.Root {
		return refuse(l.c.cfg.Dir, ErrState, "root %d was verified before, and neither the disk nor the mirror has more than %d", l.known.Root, v)
	}
	if l.c.atRoot != v {
		l.c.atRoot, l.c.noRoot = v, map[int]time.Time{}
	}
	l.c.noRoot[l.mirror] = l.c.cfg.Now()
	l.setTime()
	return nil
}

// verified notes the newest root, after its file was written: cut off in between, the next look notes it.
func (l *look) verified(version int64, text []byte) error {
	if version <= l.known.Root {
		return nil
	}
	l.known.Root, l.known.Digest = version, digest(text)
	return l.c.state.remember(l.known)
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
