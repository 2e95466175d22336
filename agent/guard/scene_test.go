package guard

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"bailey/internal/bpflsm"
	"bailey/internal/cgroup2"
)

// scene is a machine's worth of things that an agent has: directories on a disk of their own, a program, a process, control
// groups and pins. Guarded or not, it looks the same.
type scene struct {
	Guarded   bool
	Root      string // all files
	Mount     string // the disk's mount point
	Above     string // a directory above Dir
	Dir       string // protected
	Deep      string // a file nine directories below Dir
	Program   string // a protected file on its own
	Elsewhere string // an unprotected directory on the same disk
	Disk      string // the block device
	SCSI      bool   // it is a SCSI disk
	Mapper    bool   // it is made of another by the device mapper: Lower
	Lower     string
	Parent    string // the control group above Cgroup
	Cgroup    string // the victim's
	Other     string // the attackers'
	Service   string // Cgroup by its name in /proc
	Pins      string
	Manager   int // stands in for the service manager
	Shutdown  string
	PID       int
	Hello     hello

	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	logs bytes.Buffer
}

func (s *scene) Config() string { return filepath.Join(s.Dir, "config") }

const sceneName = "bailey-guard-test"

// newScene makes a scene with a victim in it. The test process stands in for the service manager.
func newScene(t *testing.T, guarded bool, change ...func(*scene)) *scene {
	t.Helper()
	root, err := os.MkdirTemp("", "scene-")
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{
		Guarded: guarded, Root: root, Mount: root + "/disk", Above: root + "/disk/above", Dir: root + "/disk/above/state",
		Program: root + "/disk/program", Elsewhere: root + "/disk/elsewhere", Parent: cgroup2.Root + "/" + sceneName,
		Other: cgroup2.Root + "/" + sceneName + "-other", Service: "/" + sceneName + "/agent.service", Pins: "/sys/fs/bpf/" + sceneName,
		Manager: os.Getpid(),
	}
	s.Cgroup = cgroup2.Root + s.Service
	s.Deep = s.Dir + "/1/2/3/4/5/6/7/8/deep"
	for _, f := range change {
		f(s)
	}
	for what, make := range map[string]func() error{"disk": s.makeDisk, "control groups": s.makeCgroups} {
		if err := make(); err != nil {
			s.remove(t)
			t.Fatalf("make the scene's %s: %v", what, err)
		}
	}
	if !guarded { // what the guard would have
		if err := s.pinSomething(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.startVictim(); err != nil {
		logs := s.logs.String()
		s.remove(t)
		t.Fatalf("start the victim: %v\n%s", err, logs)
	}
	return s
}

func (s *scene) makeDisk() error {
	packed, err := os.Open("testdata/ext4.img.gz") // mke2fs -t ext4 -O ^has_journal,^resize_inode -m 0 -N 64 -b 1024 FILE 2048
	if err != nil {
		return err
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		return err
	}
	image, err := os.Create(s.Root + "/image")
	if err != nil {
		return err
	}
	defer image.Close()
	if _, err := io.Copy(image, z); err != nil {
		return err
	}
	attach := attachLoop
	if s.SCSI {
		attach = onSCSI
	}
	dev, err := attach(image)
	if err != nil {
		return err
	}
	defer dev.Close() // once it is mounted
	if s.Mapper {
		if dev, err = s.onMapper(dev); err != nil {
			return err
		}
		defer dev.Close()
	}
	s.Disk = dev.Name()
	if err := os.Mkdir(s.Mount, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(s.Disk, s.Mount, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	// Other mount namespaces are told of what is mounted here, as systemd has it.
	if err := unix.Mount("", s.Mount, "", unix.MS_SHARED, ""); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(s.Deep), s.Dir + "/empty", s.Elsewhere} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Mkdir(s.Elsewhere+"/wants", 0o755), os.Symlink("/nowhere", s.Elsewhere+"/wants/agent.service")); err != nil {
		return err
	}
	for path, content := range map[string]string{
		s.Config(): "config", s.Deep: "deep", s.Program: "program", s.Elsewhere + "/file": "file", s.Above + "/beside": "beside",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// attachLoop makes a block device of a file; it goes with its last user.
func attachLoop(image *os.File) (*os.File, error) {
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, err
	}
	dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	err = unix.IoctlLoopConfigure(int(dev.Fd()), &unix.LoopConfig{Fd: uint32(image.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}})
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return dev, nil
}

func (s *scene) makeCgroups() error {
	for _, dir := range []string{s.Parent, s.Other} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(s.Parent+"/cgroup.subtree_control", []byte("+memory +pids +cpu"), 0); err != nil {
		return err
	}
	return s.makeCgroup()
}

// makeCgroup makes the service's control group, as the service manager does at each start.
func (s *scene) makeCgroup() error {
	if err := os.Mkdir(s.Cgroup, 0o755); err != nil {
		return err
	}
	return os.WriteFile(s.Cgroup+"/memory.max", []byte("300M"), 0)
}

func (s *scene) pinSomething() error {
	dir := s.Pins + "/guard-none"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 256})
	if err != nil {
		return err
	}
	return errors.Join(m.Pin(dir+"/"+bpflsm.MapPin("devices")), m.Close())
}

// startVictim starts a victim as the service manager starts a service.
func (s *scene) startVictim() error { return s.startVictimIn(s.Cgroup) }

func (s *scene) startVictimIn(dir string) error {
	group, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer group.Close()
	s.cmd = s.helper("victim")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd()), Setpgid: true}
	s.logs.Reset()
	s.cmd.Stderr = &s.logs
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.PID = s.cmd.Process.Pid
	s.out = bufio.NewScanner(out)
	s.out.Buffer(nil, 1<<20)
	s.Hello = hello{}
	if err := s.read(&s.Hello, time.Minute); err != nil {
		return err
	}
	if s.Hello.Error != "" {
		return errors.New(s.Hello.Error)
	}
	return nil
}

func (s *scene) helper(name string) *exec.Cmd {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperVariable+"="+name, sceneVariable+"="+string(text))
	return cmd
}

var errSilent = errors.New("the victim does not answer")

func (s *scene) read(into any, patience time.Duration) error {
	line := make(chan []byte, 1)
	go func() {
		if s.out.Scan() {
			line <- bytes.Clone(s.out.Bytes())
		}
		close(line)
	}()
	select {
	case b, ok := <-line:
		if !ok {
			return fmt.Errorf("%w: it is gone", errSilent)
		}
		return json.Unmarshal(b, into)
	case <-time.After(patience):
		return errSilent
	}
}

// patience is how long the victim may take: to end the guard is a wait for the kernel with every program.
const patience = time.Minute

// tell has the victim do something.
func (s *scene) tell(command string, into any) error {
	if _, err := fmt.Fprintln(s.in, command); err != nil {
		return fmt.Errorf("%w: %w", errSilent, err)
	}
	return s.read(into, patience)
}

// order is tell for commands whose answer is ok.
func (s *scene) order(t *testing.T, command string) {
	t.Helper()
	var reply string
	if err := s.tell(command, &reply); err != nil || reply != "ok" && reply != "bye" {
		t.Fatalf("%s: %v, %s\n%s", command, err, reply, s.logs.String())
	}
}

// stopped says whether the victim cannot answer: dead, stopped, traced or frozen.
func (s *scene) stopped() string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID))
	if err != nil {
		return "gone"
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	switch rest[0] {
	case 'T':
		return "stopped"
	case 't':
		return "traced"
	case 'Z', 'X':
		return "dead"
	}
	for _, dir := range []string{s.Cgroup, s.Parent, s.Other} {
		if events, _ := os.ReadFile(dir + "/cgroup.events"); strings.Contains(string(events), "frozen 1") {
			if procs, _ := os.ReadFile(dir + "/cgroup.procs"); dir == s.Parent || strings.Contains("\n"+string(procs), "\n"+strconv.Itoa(s.PID)+"\n") {
				return "frozen"
			}
		}
	}
	return ""
}

// end ends the guard, by a new victim if this one is dead, and removes the scene.
func (s *scene) end(t *testing.T) {
	t.Helper()
	if s.stopped() == "frozen" { // everybody may thaw it, and then it goes home
		_ = os.WriteFile(s.Other+"/cgroup.freeze", []byte("0"), 0)
		for range 100 {
			if b, _ := os.ReadFile(s.proc("cgroup")); strings.HasSuffix(strings.TrimSpace(string(b)), s.Service) {
				break
			}
			time.Sleep(20 * time.Millisecond) //nolint:forbidigo // it needs a moment
		}
	}
	if s.stopped() != "" && s.Guarded {
		if s.stopped() != "dead" && s.stopped() != "gone" {
			t.Errorf("the victim is %s, and the guard has nobody to end it", s.stopped())
		}
		_ = s.cmd.Wait()
		if err := s.startVictim(); err != nil {
			t.Errorf("start a victim to end the guard: %v\n%s", err, s.logs.String())
		}
	}
	if s.Guarded && s.stopped() == "" {
		var reply string
		if err := s.tell("close", &reply); err != nil || reply != "bye" {
			t.Errorf("end the guard: %v, %s\n%s", err, reply, s.logs.String())
		}
	}
	s.remove(t)
}

func (s *scene) remove(t *testing.T) {
	t.Helper()
	for _, dir := range []string{s.Parent, s.Cgroup, s.Other} {
		_ = os.WriteFile(dir+"/cgroup.freeze", []byte("0"), 0)
		_ = os.WriteFile(dir+"/cgroup.kill", []byte("1"), 0)
	}
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Kill()
		_ = s.in.Close()
		_ = s.cmd.Wait()
	}
	_ = os.WriteFile("/proc/sys/kernel/ftrace_enabled", []byte("1"), 0)
	for unix.Unmount(s.Mount, unix.MNT_DETACH) == nil {
	}
	if s.Mapper { // its filesystem goes in the background
		until := time.Now().Add(3 * time.Second)
		err := mapper(dmRemove, mapperName, "")
		for ; errors.Is(err, unix.EBUSY) && time.Now().Before(until); err = mapper(dmRemove, mapperName, "") {
			time.Sleep(20 * time.Millisecond) //nolint:forbidigo // see above
		}
		if err != nil && !errors.Is(err, unix.ENXIO) {
			t.Errorf("remove the mapped device: %v", err)
		}
	}
	var st unix.Statfs_t
	for unix.Statfs("/sys/fs/bpf", &st) == nil && st.Type == unix.TMPFS_MAGIC && unix.Unmount("/sys/fs/bpf", 0) == nil {
	}
	for until := time.Now().Add(3 * time.Second); ; time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // processes that were killed leave their group when they do
		var errs []error
		for _, dir := range []string{s.Cgroup, s.Parent, s.Other} {
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		if len(errs) == 0 {
			break
		}
		if time.Now().After(until) {
			t.Error(errors.Join(errs...))
			break
		}
	}
	if err := errors.Join(os.RemoveAll(s.Pins), os.RemoveAll(s.Pins+"-old"), os.RemoveAll(s.Root)); err != nil {
		t.Error(err)
	}
}
