package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/internal/boottime"
)

const (
	flagExiting      = 0x00000004 // PF_EXITING in linux/sched.h
	flagKernelThread = 0x00200000 // PF_KTHREAD
	maxProcFile      = 64 << 10
	deletedSuffix    = " (deleted)"
)

// procDir is one process's directory in /proc. The open directory belongs to that one process: after its end every read
// fails, even when the pid has been given to another.
type procDir struct {
	fd  int
	pid uint32
}

func openProc(pid uint32) (*procDir, error) {
	fd, err := unix.Open("/proc/"+strconv.FormatUint(uint64(pid), 10), unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open process %d in /proc: %w", pid, err)
	}
	return &procDir{fd: fd, pid: pid}, nil
}

func (d *procDir) close() { _ = unix.Close(d.fd) }

func (d *procDir) read(name string) ([]byte, error) {
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s of process %d: %w", name, d.pid, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxProcFile))
	if err != nil {
		return nil, fmt.Errorf("read %s of process %d: %w", name, d.pid, err)
	}
	return data, nil
}

func (d *procDir) readlink(name string) (string, error) {
	buffer := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(d.fd, name, buffer)
	if err != nil {
		return "", fmt.Errorf("read link %s of process %d: %w", name, d.pid, err)
	}
	return string(buffer[:n]), nil
}

// executable returns the identity of the program's file; the zero File for a kernel thread.
func (d *procDir) executable() (event.File, error) {
	path, err := d.readlink("exe")
	if errors.Is(err, unix.ENOENT) {
		return event.File{}, nil
	}
	if err != nil {
		return event.File{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, "exe", &st, 0); err != nil {
		return event.File{}, fmt.Errorf("stat the program of process %d: %w", d.pid, err)
	}
	file := fileOf(&st)
	file.Path = path
	if st.Nlink == 0 || strings.HasSuffix(path, deletedSuffix) {
		file.Path, file.Deleted = strings.CutSuffix(path, deletedSuffix)
	}
	return file, nil
}

func fileOf(st *unix.Stat_t) event.File {
	return event.File{
		Dev: uint64(st.Dev), Ino: st.Ino, Size: st.Size, Mode: st.Mode, UID: st.Uid, GID: st.Gid,
		CTime: st.Ctim.Nano(), MTime: st.Mtim.Nano(),
	}
}

// procStat is what /proc/PID/stat says.
type procStat struct {
	comm    string
	state   byte
	ppid    uint32
	flags   uint64
	threads uint64
	start   uint64 // nanoseconds since boot, rounded down to 10 ms
	layout  layout
}

// layout tells one execution of a program from another, also of the same file: the kernel puts its parts where it likes, unless that is switched off
// (randomize_va_space). A child that executed nothing has its parent's.
type layout struct {
	code  uint64 // where the program's code begins, 1 if that is not shown; 0 for a kernel thread and in the middle of an exec
	stack uint64 // where its stack begins, 0 if that is not shown
}

// ended reports whether the process does nothing any more: a zombie, or on the way to being one.
func (s procStat) ended() bool {
	// A process whose first thread has ended looks like a zombie, but its others go on.
	return s.threads <= 1 && (s.state == 'Z' || s.state == 'X' || s.flags&flagExiting != 0)
}

var (
	errEnded     = errors.New("process has ended")
	errUnsettled = errors.New("process does not show its program now")
)

var errStat = errors.New("not the content of /proc/PID/stat")

// parseStat reads the content of /proc/PID/stat. The name is in parentheses and may itself hold anything.
func parseStat(data []byte) (procStat, error) {
	open, closing := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || closing < open {
		return procStat{}, errStat
	}
	fields := bytes.Fields(data[closing+1:])
	const state, ppid, flags, threads, start, code, stack = 0, 1, 6, 17, 19, 23, 25 // places behind the name
	if len(fields) <= stack || len(fields[state]) != 1 {
		return procStat{}, errStat
	}
	var numbers [6]uint64
	for i, place := range [...]int{ppid, flags, threads, start, code, stack} {
		n, err := strconv.ParseUint(string(fields[place]), 10, 64)
		if err != nil {
			return procStat{}, fmt.Errorf("%w: %w", errStat, err)
		}
		numbers[i] = n
	}
	return procStat{
		comm: string(data[open+1 : closing]), state: fields[state][0],
		ppid: uint32(numbers[0]), flags: numbers[1], threads: numbers[2], start: boottime.FromTicks(numbers[3]), layout: layout{numbers[4], numbers[5]},
	}, nil
}

// parseStatus reads the credentials from the content of /proc/PID/status.
func parseStatus(data []byte) (event.Credentials, error) {
	var c event.Credentials
	found := 0
	for line := range bytes.Lines(data) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		var err error
		switch name {
		case "Uid":
			err = parseIDs(value, &c.UID, &c.EUID, &c.SUID, &c.FSUID)
		case "Gid":
			err = parseIDs(value, &c.GID, &c.EGID, &c.SGID, &c.FSGID)
		case "CapEff":
			c.CapEffective, err = strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		default:
			continue
		}
		if err != nil {
			return event.Credentials{}, fmt.Errorf("parse %s of a process's status: %w", name, err)
		}
		found++
	}
	if found != 3 {
		return event.Credentials{}, errors.New("a process's status has no Uid, Gid or CapEff")
	}
	return c, nil
}

func parseIDs(text string, into ...*uint32) error {
	fields := strings.Fields(text)
	if len(fields) != len(into) {
		return fmt.Errorf("%d ids, not %d", len(fields), len(into))
	}
	for i, field := range fields {
		n, err := strconv.ParseUint(field, 10, 32)
		if err != nil {
			return err
		}
		*into[i] = uint32(n)
	}
	return nil
}

// parseCgroups reads the content of /proc/PID/cgroup: the version 2 path, or the memory or pids controller's where no
// version 2 hierarchy is in use.
func parseCgroups(data []byte) cgroupName {
	var v2, v1 string
	for line := range bytes.Lines(data) {
		fields := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		switch {
		case fields[0] == "0" && fields[1] == "":
			v2 = fields[2]
		case strings.Contains(","+fields[1]+",", ",memory,"):
			v1 = fields[2]
		case v1 == "" && strings.Contains(","+fields[1]+",", ",pids,"):
			v1 = fields[2]
		}
	}
	path := v2
	if (v2 == "" || v2 == "/") && v1 != "" {
		path = v1
	}
	name := cgroupName{path, containerID(path)}
	if name.container == "" {
		name.container = containerID(v1)
	}
	return name
}

// How long a process that executes a program meanwhile is given to do so before it is read again: twice as long each time, 25 ms in all. It asks
// nothing itself meanwhile.
const (
	rereadFirst = 100 * time.Microsecond
	rereadLast  = 128 * rereadFirst
)

// process reads what a Process has. The parent's key has the parent's start time only if the parent can be read too.
func (d *procDir) process() (*event.Process, error) {
	p, _, err := d.ofOneProgram()
	if errors.Is(err, errUnsettled) {
		return p, nil
	}
	return p, err
}

// ofOneProgram is process with the layout, all of it of one program: the kernel replaces the file, the name and the credentials one after the other. The
// error is errUnsettled, with what was read, if an exec is under way for longer than this waits, or if the first thread, which alone shows the program,
// has ended.
func (d *procDir) ofOneProgram() (*event.Process, layout, error) {
	for wait := rereadFirst; ; wait *= 2 {
		before, err := d.stat()
		if err != nil {
			return nil, layout{}, err
		}
		p, err := d.processOf(before)
		if err != nil {
			return nil, layout{}, err
		}
		after, err := d.stat()
		if err != nil {
			return nil, layout{}, err
		}
		if after.sameProgram(before) {
			return p, after.layout, nil
		}
		if after.state == 'Z' || wait > rereadLast {
			return p, after.layout, errUnsettled
		}
		time.Sleep(wait) //nolint:forbidigo // the kernel is waited for, for milliseconds
	}
}

// sameProgram reports whether no exec was under way before, when s was read, or in between.
func (s procStat) sameProgram(before procStat) bool {
	return s.comm == before.comm && s.layout == before.layout && (s.layout.code != 0 || s.flags&flagKernelThread != 0)
}

// stat reads a process that has not ended.
func (d *procDir) stat() (procStat, error) {
	data, err := d.read("stat")
	if err != nil {
		return procStat{}, err
	}
	stat, err := parseStat(data)
	if err != nil {
		return procStat{}, fmt.Errorf("process %d: %w", d.pid, err)
	}
	if stat.ended() {
		return procStat{}, fmt.Errorf("process %d: %w", d.pid, errEnded)
	}
	return stat, nil
}

// processOf is process, once.
func (d *procDir) processOf(stat procStat) (*event.Process, error) {
	data, err := d.read("status")
	if err != nil {
		return nil, err
	}
	creds, err := parseStatus(data)
	if err != nil {
		return nil, err
	}
	p := &event.Process{
		Key: event.ProcessKey{PID: d.pid, Start: stat.start}, Comm: stat.comm, Credentials: creds,
		Kernel: stat.flags&flagKernelThread != 0,
	}
	if p.Executable, err = d.executable(); err != nil && !refused(err) {
		return nil, err
	}
	if data, err := d.read("cgroup"); err == nil { // absent in a kernel without cgroups
		cgroup := parseCgroups(data)
		p.Cgroup, p.ContainerID = cgroup.path, cgroup.container
	}
	p.MountNamespace = d.mountNamespace()
	p.Parent = parentKey(stat.ppid)
	return p, nil
}

// mountNamespace returns the inode of the process's mount namespace, 0 if it does not show it.
func (d *procDir) mountNamespace() uint64 {
	var st unix.Stat_t
	if unix.Fstatat(d.fd, "ns/mnt", &st, 0) != nil {
		return 0
	}
	return st.Ino
}

// refused says that a process, such as pid 1 in a sandbox, does not let its program be looked at.
func refused(err error) bool { return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) }

func parentKey(ppid uint32) event.ProcessKey {
	if ppid == 0 {
		return event.ProcessKey{}
	}
	key := event.ProcessKey{PID: ppid}
	data, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(ppid), 10) + "/stat")
	if err != nil {
		return key
	}
	if stat, err := parseStat(data); err == nil {
		key.Start = stat.start
	}
	return key
}

// readProcess reads one process from /proc.
func readProcess(pid uint32) (*event.Process, error) {
	d, err := openProc(pid)
	if err != nil {
		return nil, err
	}
	defer d.close()
	return d.process()
}

// listPIDs returns the thread groups that /proc shows.
func listPIDs() ([]uint32, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("open /proc: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list /proc: %w", err)
	}
	var pids []uint32
	for _, name := range names {
		if pid, err := strconv.ParseUint(name, 10, 32); err == nil {
			pids = append(pids, uint32(pid))
		}
	}
	return pids, nil
}
