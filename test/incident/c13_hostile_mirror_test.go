package incident

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/update/release"
	"bailey/update/updatetest"
)

// eScan's update server, up to the machine's door.
//
// Date: 2026-01-20.
// Source: cybernews.media/article/escan-antivirus-delivers-malware-in-supply-chain-attack.
// Shipped: hostile code from the real server. A mirror that somebody else has, or one stolen key, is enough for nothing here.
// Must: G4 G8 G12. What was not signed for, or by too few, is not even unpacked; a sound mirror brings the cure.
func TestC13HostileMirror(t *testing.T) {
	t.Parallel()
	o := newOffering(t, nil, "c13-01a", "c13-01c")
	o.deliver(delivery{ID: "C13-01a", Name: "eScan update server, 2026", Must: "G4 G8 G12", Stops: []string{"fetch"},
		Did: "is another file of the same length than what was signed for"}, func(a *arrival) {
		a.installs()
		e := a.content("2026.11.1", goodContent+"prefix /nothing\n")
		a.vendor.Instead(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/targets/") {
				return false
			}
			info, err := os.Stat(filepath.Join(a.vendor.Dir, r.URL.Path))
			if err == nil {
				_, err = w.Write(bytes.Repeat([]byte("x"), int(info.Size())))
			}
			return err == nil
		})
		a.during(func() { a.staysIn(e, "fetch", "not the file that was signed") })
		a.vendor.Instead(nil)
		a.isStopped()
		if resultFile() == "" {
			return // what failed to come is tried again after a while
		}
		looked := time.Now()
		s := e.after(func() { // what failed to come is not tried again for 10 s
			if time.Since(looked) > 2*time.Second {
				looked = time.Now()
				a.Must("update", "check")
			}
		})
		if s.GetUpdate().GetState() != "committed" {
			a.errorf("from a sound mirror it is %s: %s", s.GetUpdate().GetState(), s.GetUpdate().GetReason())
		}
	})
	o.deliver(delivery{ID: "C13-01c", Name: "eScan update server, 2026", Must: "G3 G4 G8 G12", Long: true, Stops: []string{""},
		Did: "is signed as it must be, and kills, traces, edits the hosts file and others' releases, loads BPF programs, connects outwards"}, func(a *arrival) {
		a.installs()
		v := newVictims(a.replay)
		e := a.code(map[string]string{"fault": "seize", "at": inForce, "victims": v.pids, "targets": strings.Join(v.files, ",")})
		a.comesInto(e, "it is contained: each attempt fails, as in the table above")
		a.everyAttemptFailed(v.expected()...)
		v.unharmed()
		if s := a.content("2026.11.1", goodContent).after(nil); s.GetUpdate().GetState() != "committed" {
			a.errorf("the cure is %s: %s", s.GetUpdate().GetState(), s.GetUpdate().GetReason())
		}
	})
}

// TestC13TooFewSignatures has a repository in which two of three keys sign a vendor's releases, and one of them was stolen, together with the keys
// that are on the server.
func TestC13TooFewSignatures(t *testing.T) {
	t.Parallel()
	repository := updatetest.New(time.Now())
	stream := release.Stream{Vendor: "acme", Product: "c13-01b", Kind: release.Content}
	keys := []updatetest.Key{updatetest.NewKey("one"), updatetest.NewKey("two"), updatetest.NewKey("three")}
	repository.Delegate(stream.Role(), stream.Pattern(), 2, keys...)
	repository.Release(stream, "1.0", []byte("hostile"))
	repository.Keys[stream.Role()] = keys[:1]
	repository.Commit()
	mirror := httptest.NewServer(&updatetest.Server{Repository: repository})
	t.Cleanup(mirror.Close)
	o := &offering{scene: newSceneWith(t, func(s *scene) string {
		root := filepath.Join(s.Dir, "root.json")
		if err := os.WriteFile(root, repository.RootFile(1), 0o644); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("[update]\nmirrors = [%q]\nroot = %q\nstreams = [%q]\ninterval = \"1h\"\n", mirror.URL, root, stream.String())
	})}
	o.deliver(delivery{ID: "C13-01b", Name: "eScan update server, 2026", Must: "G4 G8 G12", Stops: []string{held},
		Did: "is signed by one key of the two that must sign"}, func(a *arrival) {
		a.installs()
		a.during(func() { a.staysIn(a.ending("content", "1.0"), held, "signature") })
		a.isStopped()
	})
}
