package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bailey/agent/event"
)

// rawRecord builds a record as process.bpf.c lays it out.
func rawRecord(kind uint16, fixed []byte, strings ...string) []byte {
	b := make([]byte, headerSize)
	b = append(b, fixed...)
	binary.LittleEndian.PutUint16(b, kind)
	binary.LittleEndian.PutUint16(b[2:], uint16(len(b)))
	for _, s := range strings {
		b = append(b, s...)
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	binary.LittleEndian.PutUint64(b[8:], 77)
	return b
}

func rawWho(pid, ppid uint32, comm string) []byte {
	var b []byte
	for _, v := range []uint64{1000, 900, 5, 0xff} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	for _, v := range []uint32{pid, ppid, 1, 2, 3, 4, 5, 6, 7, 8, 0x109, 1} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = append(b, []byte(comm + strings.Repeat("\x00", 16))[:16]...)
	return binary.LittleEndian.AppendUint64(b, 4026531841)
}

func rawExec(lengths [10]uint32, tail ...string) []byte {
	b := rawWho(10, 9, "true")
	for _, v := range []uint64{100, 1e9, 2e9, 4096} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	for _, v := range []uint32{8<<20 | 300, 0o100755, 1, 2, 0xEF53, 1} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for _, v := range lengths {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return rawRecord(recordExec, b, tail...)
}

var (
	goodExec = rawExec([10]uint32{2, 30, 7, 0, 9, 5, 3, 2, 4, 7}, "true\x00bin\x00", "c\x00", "d/e\x00", "home\x00", "x/y", "a\x00bcde\x00")
	goodFork = rawRecord(recordFork, append(append(rawWho(9, 1, "sh"), rawWho(10, 9, "sh")...), 2, 0, 0, 0, 0, 0, 0, 0), "c\x00")
	goodExit = rawRecord(recordExit, append(rawWho(10, 9, "true"), 9, 0, 0, 0, 0, 0, 0, 0))
)

func TestDecodeReadsEveryField(t *testing.T) {
	t.Parallel()
	var r record
	if err := r.decode(goodExec); err != nil {
		t.Fatal(err)
	}
	wantWho := who{
		key: event.ProcessKey{PID: 10, Start: 1000}, parent: event.ProcessKey{PID: 9, Start: 900}, cgroup: 5,
		creds: event.Credentials{UID: 1, EUID: 2, SUID: 3, FSUID: 4, GID: 5, EGID: 6, SGID: 7, FSGID: 8, CapEffective: 0xff},
		cell:  0x109, kernel: true, comm: [16]byte{'t', 'r', 'u', 'e'}, mountNS: 4026531841,
	}
	if r.who != wantWho {
		t.Errorf("who is %+v\nwant %+v", r.who, wantWho)
	}
	wantFile := event.File{Dev: 44 | 8<<8 | 256<<12, Ino: 100, CTime: 1e9, MTime: 2e9, Size: 4096, Mode: 0o100755, UID: 1, GID: 2, Deleted: true}
	if r.image.file != wantFile || r.image.magic != 0xEF53 {
		t.Errorf("image is %+v", r.image)
	}
	got := []string{string(r.exe), string(r.cgroup), string(r.cgroup1), string(r.cwd), string(r.script), string(r.argv)}
	want := []string{"true\x00bin\x00", "c\x00", "d/e\x00", "home\x00", "x/y", "a\x00bcde\x00"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("strings (-want +got):\n%s", diff)
	}
	if r.argc != 2 || r.envSize != 30 || r.argvSize != 7 || r.time != 77 {
		t.Errorf("record is %+v", r)
	}
	if err := r.decode(goodFork); err != nil || r.who.key.PID != 9 || r.child.key.PID != 10 || string(r.cgroup) != "c\x00" {
		t.Errorf("fork: %v %+v", err, r)
	}
	if err := r.decode(goodExit); err != nil || r.status != 9 {
		t.Errorf("exit: %v %+v", err, r)
	}
}

// A newer object in the kernel may send longer fixed parts.
func TestDecodeSkipsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	longer := bytes.Clone(goodExit)
	longer = append(longer, 1, 2, 3, 4)
	binary.LittleEndian.PutUint16(longer[2:], uint16(len(longer)))
	var r record
	if err := r.decode(longer); err != nil || r.status != 9 {
		t.Errorf("longer exit: %v %+v", err, r)
	}
	other := bytes.Clone(goodExit)
	other[0] = 200
	if err := r.decode(other); !errors.Is(err, errUnknownKind) {
		t.Errorf("unknown kind: %v", err)
	}
}

func TestDecodeRefusesEveryCut(t *testing.T) {
	t.Parallel()
	var r record
	for _, good := range [][]byte{goodExec, goodFork, goodExit} {
		for n := range good {
			if err := r.decode(good[:n]); !errors.Is(err, errShort) {
				t.Fatalf("%d of %d bytes: %v", n, len(good), err)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range [][]byte{goodExec, goodFork, goodExit, nil, goodExec[:20], rawRecord(200, nil)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r record
		if err := r.decode(b); err != nil {
			return
		}
		if len(r.exe)+len(r.cgroup)+len(r.cgroup1)+len(r.cwd)+len(r.script)+len(r.argv) > len(b) {
			t.Fatal("strings are longer than their record")
		}
		if path := joinNames(r.exe); path[0] != '/' {
			t.Fatalf("path %q", path)
		}
		argv, cut := splitArgv(r.argv, r.argvSize)
		if got := strings.Join(argv, "\x00"); !cut && strings.TrimSuffix(string(r.argv), "\x00") != got && len(r.argv) > 0 {
			t.Fatalf("arguments %q of %q", got, r.argv)
		}
		execDetail(&r, &event.Process{}, "")
	})
}

func FuzzNext(f *testing.F) {
	f.Add(append(bytes.Clone(goodExec), goodExit...))
	f.Add(goodFork[:17])
	f.Fuzz(func(t *testing.T, b []byte) {
		for rest := b; len(rest) > 0; {
			one, more, err := next(rest)
			if err != nil {
				return
			}
			if len(one) < headerSize || len(one)+len(more) != len(rest) {
				t.Fatalf("cut %d of %d, %d left", len(one), len(rest), len(more))
			}
			rest = more
		}
	})
}

func TestJoinNames(t *testing.T) {
	t.Parallel()
	for names, want := range map[string]string{
		"": "/", "bin\x00": "/bin", "sh\x00bin\x00usr\x00": "/usr/bin/sh", "memfd:x\x00": "/memfd:x",
	} {
		if got := joinNames([]byte(names)); got != want {
			t.Errorf("joinNames(%q) = %q, want %q", names, got, want)
		}
	}
}

func TestSplitArgv(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, memory string
		size         uint32
		want         []string
		cut          bool
	}{
		{"none", "", 0, nil, false},
		{"unread", "", 10, nil, true},
		{"one", "ls\x00", 3, []string{"ls"}, false},
		{"empty_last", "ls\x00\x00", 4, []string{"ls", ""}, false},
		{"cut_inside", "ls\x00-lo", 90, []string{"ls", "-lo"}, true},
		{"cut_behind_zero", "ls\x00", 90, []string{"ls", ""}, true},
		{"overwritten_title", "nginx: worker", 13, []string{"nginx: worker"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, cut := splitArgv([]byte(c.memory), c.size)
			if diff := cmp.Diff(c.want, got); diff != "" || cut != c.cut {
				t.Errorf("cut %v (-want +got):\n%s", cut, diff)
			}
		})
	}
}
