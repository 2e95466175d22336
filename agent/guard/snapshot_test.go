package guard

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"bailey/internal/pathname"
)

// snapshot is what an attack may have changed, by name.
type snapshot map[string]string

// look takes a snapshot. The effect decides whether an attack was stopped, not what it was told.
func (s *scene) look() snapshot {
	n := snapshot{"stopped": s.stopped()}
	s.lookAtProcess(n)
	s.lookAtFiles(n)
	for _, dir := range []string{s.Cgroup, s.Parent} {
		for _, f := range []string{"cgroup.freeze", "memory.max", "memory.high", "pids.max", "cpu.max", "cgroup.subtree_control"} {
			n.file(filepath.Join(dir, f))
		}
	}
	n.file("/proc/sys/kernel/ftrace_enabled")
	n.file("/sys/kernel/security/lsm") // is /sys still there
	pins := s.Pins
	_ = filepath.WalkDir(pins, func(path string, _ fs.DirEntry, err error) error { // an error is in the snapshot
		n["pin "+path] = fmt.Sprint(err)
		return nil
	})
	var st unix.Statfs_t
	err := unix.Statfs("/sys/fs/bpf", &st)
	n["bpffs"] = fmt.Sprint(st.Type, err)
	return n
}

func (n snapshot) file(path string) {
	b, err := os.ReadFile(path)
	n[path] = fmt.Sprint(strings.TrimSpace(string(b)), err)
}

func (s *scene) lookAtProcess(n snapshot) {
	proc := fmt.Sprintf("/proc/%d/", s.PID)
	for _, f := range []string{"oom_score_adj", "coredump_filter", "limits", "comm"} {
		n.file(proc + f)
	}
	group, _ := os.ReadFile(proc + "cgroup")
	_, n["cgroup"], _ = strings.Cut(string(group), "0::") // older hierarchies come and go
	stat, _ := os.ReadFile(proc + "stat")
	_, rest, _ := strings.Cut(string(stat), ") ")
	if f := strings.Fields(rest); len(f) > 38 { // from field 3 on, man 5 proc
		n["nice"], n["start"], n["policy"] = f[16], f[19], f[38]
	}
	status, _ := os.ReadFile(proc + "status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Cpus_allowed:") || strings.HasPrefix(line, "Uid:") {
			n["status "+line] = ""
		}
	}
	prio, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(s.PID), 0)
	n["ioprio"] = fmt.Sprint(prio, errno)
	if s.stopped() == "" {
		var c condition
		err := s.tell("state", &c)
		n["victim"] = fmt.Sprint(c.Secret, c.Memory, err)
	}
}

func (s *scene) lookAtFiles(n snapshot) {
	for _, root := range []string{s.Above, s.Program} {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error { // an error is in the snapshot
			n["file "+path] = fmt.Sprint(err)
			if err != nil || strings.HasPrefix(path, s.Above+"/") && !pathname.Below(path, s.Dir) {
				return nil
			}
			var st unix.Stat_t
			_ = unix.Lstat(path, &st)
			times := st.Mtim
			if path == s.Above {
				times = unix.Timespec{} // others may work beside what is protected
				st.Nlink = 0
			}
			text := ""
			if d.Type().IsRegular() {
				b, err := os.ReadFile(path)
				text = fmt.Sprint(string(b), err)
			}
			n["file "+path] = fmt.Sprint(st.Dev, st.Ino, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, times, xattrs(path), inodeFlags(path), text)
			return nil
		})
	}
	var st unix.Statfs_t
	err := unix.Statfs(s.Dir, &st)
	n["filesystem"] = fmt.Sprint(st.Type, st.Flags, err)
	sector, err := readDisk(cmp.Or(s.Lower, s.Disk))
	n["disk"] = fmt.Sprintf("%x %v", sector, err)
	err = os.WriteFile(s.Elsewhere+"/alive", nil, 0o600) // a filesystem that was shut down refuses that
	n["alive"] = fmt.Sprint(err)
}

// diskSpot is where on the disk nothing is.
const diskSpot = 2040 * 1024

// readDisk returns the sector at diskSpot as the disk itself has it, whatever the kernel keeps of it.
func readDisk(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	defer unix.Munmap(page) //nolint:errcheck // it is a mapping
	n, err := unix.Pread(fd, page[:512], diskSpot)
	return bytes.Clone(page[:max(n, 0)]), err
}

func xattrs(path string) string {
	var b [512]byte
	size, err := unix.Llistxattr(path, b[:])
	if err != nil {
		return ""
	}
	return string(b[:size])
}

func inodeFlags(path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	return strconv.FormatUint(uint64(flags), 16) + fmt.Sprint(err)
}

// difference names what changed.
func (n snapshot) difference(after snapshot) []string {
	var out []string
	for k, v := range n {
		if w, ok := after[k]; !ok || v != w {
			out = append(out, k)
		}
	}
	for k := range after {
		if _, ok := n[k]; !ok {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}
