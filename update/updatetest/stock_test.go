package updatetest_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

// stock is the client that comes with go-tuf, used as its manual says. Where it falls, an attack is shown to be real.
type stock struct {
	dir  string
	root []byte // what the program has embedded
}

func newStock(t *testing.T, s *stand) *stock {
	t.Helper()
	return &stock{dir: t.TempDir(), root: s.RootFile(1)}
}

// ask begins anew, as after a restart, and fetches paths one after the other. It returns the text of the last; a panic is its own answer.
func (k *stock) ask(s *stand, paths ...string) (text string, panicked bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			panicked, err = true, fmt.Errorf("panic: %v", p)
		}
	}()
	cfg, err := config.New(s.url+"/metadata", k.root)
	if err != nil {
		return "", false, err
	}
	cfg.LocalMetadataDir, cfg.LocalTargetsDir, cfg.RemoteTargetsURL = k.dir, k.dir, s.url+"/targets"
	u, err := updater.New(cfg)
	if err != nil {
		return "", false, err
	}
	u.UnsafeSetRefTime(s.now)
	if err := u.Refresh(); err != nil {
		return "", false, err
	}
	for _, p := range paths {
		info, ierr := u.GetTargetInfo(p)
		if ierr != nil {
			text, err = "", ierr
			continue
		}
		file, _, derr := u.DownloadTarget(info, "", "")
		if derr != nil {
			text, err = "", derr
			continue
		}
		b, rerr := os.ReadFile(file)
		text, err = string(b), rerr
	}
	return text, false, err
}
