package incident

import (
	"io/fs"
	"os"
	"syscall"
	"testing"
	"time"
)

// Microsoft Defender's rule against shortcuts.
//
// Date: 2023-01-13.
// Source: borncity.com/win/2023/01/14; bitdefender.com/en-us/blog/hotforsecurity/faulty-microsoft-defender-asr-rule.
// Shipped: the logic of an attack-surface rule. Where it was set to block it deleted shortcuts of all users, and the cure did not bring
// them back.
// Must: G9. A product cannot remove or change what it is asked about: it has a descriptor for reading and no way to the file. What it
// can do is deny, and the brake bounds that: afterwards every file is as it was, to the bit, the owner and the time. (Needs the brake.)
func TestC04MassRemediation(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.replay(story{ID: "C4-01", Name: "Microsoft Defender ASR rule, 2023", Must: "G9", Refuses: true,
		Did: "denies 500 shortcuts of users and tries to delete them"}, func(r *replay) {
		list := r.files("home", "u%d.desktop", "[Desktop Entry]\nType=Application\n", 500)
		before := map[string]os.FileInfo{}
		for i, d := range list {
			if err := os.Chown(d.path, 1000+i%7, 1000); err != nil {
				r.errorf("%v", err)
			}
			before[d.path] = mustStat(t, d.path)
		}
		r.plays(r.spec(map[string]string{"deny_content": "[Desktop Entry]", "fault": "seize", "at": "ready",
			"targets": list[0].path + "," + list[1].path}))
		r.watch(func() { r.brakes(list, brakeFiles) })
		r.everyAttemptFailed("unlink_0", "write_1")
		for path, was := range before {
			now := mustStat(t, path)
			a, b := was.Sys().(*syscall.Stat_t), now.Sys().(*syscall.Stat_t)
			if was.Mode() != now.Mode() || was.Size() != now.Size() || !was.ModTime().Equal(now.ModTime()) || a.Uid != b.Uid || a.Gid != b.Gid || a.Ino != b.Ino {
				r.errorf("%s was changed", path)
			}
		}
	})
}

func mustStat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// Google Safe Browsing's "/".
//
// Date: 2009-01-31.
// Source: practicumpioneers.wordpress.com/2009/02/02, which quotes the operator.
// Shipped: one entry of a list, "/", checked in by hand. It stands for all addresses: every result "may harm your computer".
// Must: G3 G13. A selector that is too broad is noticed by what it does: the brake comes before the machine is harmed, and what is
// critical was never in danger. (Needs the brake.)
func TestC04BroadSelector(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, c := range []struct {
		story
		content, text string
	}{
		{story{ID: "C4-07a", Name: "Google Safe Browsing, 2009", Must: "G3 G13", Refuses: true, Did: "has the path \"/\" on its list"}, "prefix /\n", "text"},
		{story{ID: "C4-07b", Name: "Google Safe Browsing, 2009", Must: "G3 G13", Refuses: true, Did: "has the digest of the empty file on its list"},
			"sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n", ""},
		{story{ID: "C4-07c", Name: "Google Safe Browsing, 2009", Must: "G3 G13", Refuses: true, Long: true, Did: "has the empty path on its list"}, "prefix \n", "text"},
	} {
		s.replay(c.story, func(r *replay) {
			list := r.files(r.name, "f%d", c.text, 60)
			sp := r.spec(nil)
			sp.Files = map[string]string{"content.txt": c.content}
			r.plays(sp)
			r.watch(func() { r.brakes(list, brakeFiles) })
			r.watchFor(300 * time.Millisecond)
		})
	}
}
