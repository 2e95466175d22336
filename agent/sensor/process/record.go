package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"bailey/agent/event"
	"bailey/internal/kerneldev"
)

// The kinds of record; process.bpf.c has the same list.
const (
	recordExec = 1
	recordFork = 2
	recordExit = 3
	recordTask = 4
)

// The sizes of the fixed parts that this version reads. A newer object may send longer ones.
const (
	headerSize = 16
	whoSize    = 104
	imageSize  = 56
	execSize   = headerSize + whoSize + imageSize + 40
	forkSize   = headerSize + 2*whoSize + 8
	exitSize   = headerSize + whoSize + 8
)

// Bits of record.incomplete.
const (
	exeIncomplete  = 1
	argvIncomplete = 32
)

var (
	errShort       = errors.New("record is shorter than its parts")
	errUnknownKind = errors.New("record of an unknown kind")
)

// who is one process as a record has it.
type who struct {
	key, parent event.ProcessKey
	cgroup      uint64
	creds       event.Credentials
	cell        uint16
	kernel      bool
	comm        [16]byte // with its zeros
	mountNS     uint64
}

// image is the file of a record's program.
type image struct {
	file  event.File // without Path
	magic uint32     // of its filesystem
}

// record is one decoded record of the kernel. Its byte slices point into the buffer that was decoded.
type record struct {
	kind  uint16
	time  uint64
	who   who
	child who // fork
	image image

	argc, envSize, argvSize uint32
	incomplete              uint32
	status                  uint32 // exit, as wait(2) has it

	exe, cwd, cgroup, cgroup1 []byte // names, last one first, each with its zero
	script, argv              []byte
}

// next cuts the first record from a stream of them.
func next(stream []byte) (first, rest []byte, err error) {
	if len(stream) < headerSize {
		return nil, nil, errShort
	}
	size := binary.LittleEndian.Uint32(stream[4:])
	if size < headerSize || uint64(size) > uint64(len(stream)) {
		return nil, nil, fmt.Errorf("record of %d bytes in %d: %w", size, len(stream), errShort)
	}
	return stream[:size], stream[size:], nil
}

// decode reads b into r. It trusts no length in b.
func (r *record) decode(b []byte) error {
	*r = record{}
	if len(b) < headerSize {
		return errShort
	}
	r.kind = binary.LittleEndian.Uint16(b)
	fixed := int(binary.LittleEndian.Uint16(b[2:]))
	r.time = binary.LittleEndian.Uint64(b[8:])
	if fixed > len(b) {
		return errShort
	}
	switch r.kind {
	case recordExec, recordTask:
		return r.decodeExec(b, fixed)
	case recordFork:
		return r.decodeFork(b, fixed)
	case recordExit:
		return r.decodeExit(b, fixed)
	}
	return errUnknownKind
}

func (r *record) decodeExec(b []byte, fixed int) error {
	if fixed < execSize {
		return errShort
	}
	r.who.decode(b[headerSize:])
	r.image.decode(b[headerSize+whoSize:])
	tail := b[headerSize+whoSize+imageSize:]
	u32 := func(i int) uint32 { return binary.LittleEndian.Uint32(tail[4*i:]) }
	r.argc, r.envSize, r.argvSize, r.incomplete = u32(0), u32(1), u32(2), u32(3)
	rest := b[fixed:]
	// The order in the record is the order of writing in process.bpf.c.
	for _, s := range []struct {
		length uint32
		into   *[]byte
	}{{u32(4), &r.exe}, {u32(7), &r.cgroup}, {u32(8), &r.cgroup1}, {u32(5), &r.cwd}, {u32(6), &r.script}, {u32(9), &r.argv}} {
		if uint64(s.length) > uint64(len(rest)) {
			return errShort
		}
		*s.into, rest = rest[:s.length], rest[s.length:]
	}
	return nil
}

func (r *record) decodeFork(b []byte, fixed int) error {
	if fixed < forkSize {
		return errShort
	}
	r.who.decode(b[headerSize:])
	r.child.decode(b[headerSize+whoSize:])
	v2 := binary.LittleEndian.Uint32(b[headerSize+2*whoSize:])
	v1 := binary.LittleEndian.Uint32(b[headerSize+2*whoSize+4:])
	rest := b[fixed:]
	if uint64(v2)+uint64(v1) > uint64(len(rest)) {
		return errShort
	}
	r.cgroup, r.cgroup1 = rest[:v2], rest[v2:uint64(v2)+uint64(v1)]
	return nil
}

func (r *record) decodeExit(b []byte, fixed int) error {
	if fixed < exitSize {
		return errShort
	}
	r.who.decode(b[headerSize:])
	r.status = binary.LittleEndian.Uint32(b[headerSize+whoSize:])
	return nil
}

func (w *who) decode(b []byte) {
	_ = b[whoSize-1]
	u32 := func(i int) uint32 { return binary.LittleEndian.Uint32(b[32+4*i:]) }
	w.key = event.ProcessKey{PID: u32(0), Start: binary.LittleEndian.Uint64(b)}
	w.parent = event.ProcessKey{PID: u32(1), Start: binary.LittleEndian.Uint64(b[8:])}
	w.cgroup = binary.LittleEndian.Uint64(b[16:])
	w.creds = event.Credentials{
		UID: u32(2), EUID: u32(3), SUID: u32(4), FSUID: u32(5),
		GID: u32(6), EGID: u32(7), SGID: u32(8), FSGID: u32(9),
		CapEffective: binary.LittleEndian.Uint64(b[24:]),
	}
	w.cell = uint16(u32(10))
	w.kernel = u32(11)&1 != 0
	w.comm = [16]byte(b[80:96])
	w.mountNS = binary.LittleEndian.Uint64(b[96:])
}

func (im *image) decode(b []byte) {
	_ = b[imageSize-1]
	u32 := func(i int) uint32 { return binary.LittleEndian.Uint32(b[32+4*i:]) }
	im.file = event.File{
		Ino:   binary.LittleEndian.Uint64(b),
		CTime: int64(binary.LittleEndian.Uint64(b[8:])),
		MTime: int64(binary.LittleEndian.Uint64(b[16:])),
		Size:  int64(binary.LittleEndian.Uint64(b[24:])),
		Dev:   kerneldev.Stat(u32(0)), Mode: u32(1), UID: u32(2), GID: u32(3),
		Deleted: u32(5)&1 != 0,
	}
	im.magic = u32(4)
}

func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// joinNames makes a path of names that come last one first, each with its zero.
func joinNames(names []byte) string {
	names = bytes.TrimSuffix(names, []byte{0})
	if len(names) == 0 {
		return "/"
	}
	var path strings.Builder
	path.Grow(len(names) + 1)
	for len(names) > 0 {
		i := bytes.LastIndexByte(names, 0)
		path.WriteByte('/')
		path.Write(names[i+1:])
		names = names[:max(i, 0)]
	}
	return path.String()
}

// splitArgv makes the list of arguments of a process's argument memory, and says whether it is cut.
func splitArgv(memory []byte, size uint32) (argv []string, truncated bool) {
	truncated = uint64(size) > uint64(len(memory))
	if len(memory) == 0 {
		return nil, truncated
	}
	if !truncated {
		memory = bytes.TrimSuffix(memory, []byte{0})
	}
	text := string(memory) // one allocation for all arguments
	argv = make([]string, 0, bytes.Count(memory, []byte{0})+1)
	for {
		i := indexZero(text)
		if i < 0 {
			return append(argv, text), truncated
		}
		argv, text = append(argv, text[:i]), text[i+1:]
	}
}

func indexZero(s string) int {
	for i := range len(s) {
		if s[i] == 0 {
			return i
		}
	}
	return -1
}
