package file

import (
	"encoding/binary"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseMountinfo(t *testing.T) {
	t.Parallel()
	const text = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw
90 27 0:50 /sub /mnt/with\040space rw - fuse.sshfs host: rw
91 90 0:51 / /mnt/with\040space/in rw - tmpfs tmpfs rw
`
	got, err := parseMountinfo([]byte(text), 7)
	if err != nil {
		t.Fatal(err)
	}
	want := []mount{
		{id: 22, parent: 27, dev: makeDev(0, 21), root: "/", point: "/proc", fsType: "proc", pid: 7},
		{id: 27, parent: 1, dev: makeDev(254, 0), root: "/", point: "/", fsType: "ext4", pid: 7},
		{id: 90, parent: 27, dev: makeDev(0, 50), root: "/sub", point: "/mnt/with space", fsType: "fuse.sshfs", pid: 7, overRemote: true},
		{id: 91, parent: 90, dev: makeDev(0, 51), root: "/", point: "/mnt/with space/in", fsType: "tmpfs", pid: 7, overRemote: true},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(mount{})); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"x", "1 2 0:1 / /", "1 2 3 / / rw - tmpfs t rw", "1 2 0:1 / / rw -", "-1 2 0:1 / / rw - t t t"} {
		if _, err := parseMountinfo([]byte(bad), 0); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestParseMarks(t *testing.T) {
	t.Parallel()
	got := parseMarks([]byte("pos:\t0\nflags:\t02\nfanotify flags:30 event-flags:0\nfanotify sdev:fe00000 mflags:40 mask:0 ignored_mask:20\nfanotify sdev:27 mflags:40 mask:10008 ignored_mask:20\n"))
	want := map[uint64]uint64{makeDev(254, 0): 0, makeDev(0, 39): 0x10008}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestScope(t *testing.T) {
	t.Parallel()
	s, err := newScope([]string{"/home/", "/srv/data"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/home": true, "/home/a": true, "/homes": false, "/srv": false, "/srv/data/x": true, "": false, "/": false} {
		if s.contains(path) != want {
			t.Errorf("contains %q: %v", path, !want)
		}
	}
	for point, want := range map[string]bool{"/": true, "/srv": true, "/srv/data/deep": true, "/var": false, "/home": true} {
		if s.touches(point) != want {
			t.Errorf("touches %q: %v", point, !want)
		}
	}
	if all, _ := newScope([]string{"/"}); !all.contains("/x") || !all.touches("/x") || !all.whole() || s.whole() {
		t.Error("the whole scope")
	}
	if _, err := newScope([]string{"home"}); err == nil {
		t.Error("a relative path is accepted")
	}
}

// record builds one event as the kernel lays it out.
func record(mask uint64, infos ...[]byte) []byte {
	b := make([]byte, metadataSize)
	for _, i := range infos {
		b = append(b, i...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	b[4] = unix.FANOTIFY_METADATA_VERSION
	binary.NativeEndian.PutUint16(b[6:], uint16(metadataSize))
	binary.NativeEndian.PutUint64(b[8:], mask)
	var nofd int32 = -1
	binary.NativeEndian.PutUint32(b[16:], uint32(nofd))
	binary.NativeEndian.PutUint32(b[20:], 42)
	return b
}

func fid(kind byte, handle, name string) []byte {
	b := []byte{kind, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, uint32(len(handle)))
	b = binary.NativeEndian.AppendUint32(b, 1)
	b = append(b, handle...)
	if name != "" {
		b = append(append(b, name...), 0)
	}
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.NativeEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func TestParseChange(t *testing.T) {
	t.Parallel()
	b := record(unix.FAN_RENAME, fid(unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, "dir1dir1", "old"),
		fid(unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, "dir2dir2", "new"), fid(unix.FAN_EVENT_INFO_TYPE_FID, "fileid", ""),
		[]byte{unix.FAN_EVENT_INFO_TYPE_PIDFD, 0, 8, 0, 9, 0, 0, 0}, []byte{99, 0, 4, 0})
	c, err := parseChange(append(b, 1, 2, 3))
	if err != nil {
		t.Fatal(err)
	}
	if string(c.old.name) != "old" || string(c.entry.name) != "new" || string(c.object.handle[handleHeader:]) != "fileid" ||
		c.pid != 42 || c.pidfd != 9 || c.length != len(b) || c.object.fsid.Val != [2]int32{1, 2} || string(c.old.dir.handle[handleHeader:]) != "dir1dir1" {
		t.Errorf("%+v", c)
	}
}

func FuzzParseChange(f *testing.F) {
	f.Add(record(unix.FAN_CREATE, fid(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, "dirdirdi", "name"), fid(unix.FAN_EVENT_INFO_TYPE_FID, "filefile", "")))
	f.Add(record(unix.FAN_RENAME, fid(unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, "d", "a"), fid(unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, "e", "b")))
	f.Add(record(unix.FAN_Q_OVERFLOW))
	f.Add(record(unix.FAN_DELETE, []byte{unix.FAN_EVENT_INFO_TYPE_PIDFD, 0, 8, 0, 9, 0, 0, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			c, err := parseChange(b)
			if c.length < 0 || c.length > len(b) || err == nil && c.length == 0 {
				t.Fatalf("length %d of %d, %v", c.length, len(b), err)
			}
			if len(c.object.handle) > maxHandle+handleHeader || len(c.entry.dir.handle) > maxHandle+handleHeader {
				t.Fatal("a handle is longer than the kernel's longest")
			}
			if c.length == 0 {
				return
			}
			b = b[c.length:]
		}
	})
}

func FuzzParseMountinfo(f *testing.F) {
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		f.Add(b)
	}
	f.Add([]byte("90 27 0:50 /sub /mnt/with\\040space\\ rw - fuse.sshfs host: rw\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		mounts, err := parseMountinfo(b, 1)
		for _, m := range mounts {
			if err == nil && (m.point == "" || m.fsType == "") {
				t.Fatalf("%+v", m)
			}
		}
		parseMarks(b)
	})
}
