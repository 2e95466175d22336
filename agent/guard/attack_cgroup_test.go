package guard

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bailey/internal/cgroup2"
)

// moveHook sees a process move to another control group, and cannot refuse it.
const moveHook = "cgroup_attach_task"

func cgroupAttacks() []attack {
	const write, move = "cgroup_write", moveHook
	return []attack{
		{name: "cgroup_kill", hook: write, do: func(s *scene) error { return put(s.Cgroup+"/cgroup.kill", "1") }},
		{name: "cgroup_freeze", hook: write, do: func(s *scene) error { return put(s.Cgroup+"/cgroup.freeze", "1") }},
		{name: "cgroup_kill_above", hook: write, do: func(s *scene) error { return put(s.Parent+"/cgroup.kill", "1") }},
		{name: "cgroup_freeze_above", hook: write, do: func(s *scene) error { return put(s.Parent+"/cgroup.freeze", "1") }},
		{name: "cgroup_memory_max", hook: write, do: func(s *scene) error { return put(s.Cgroup+"/memory.max", "1048576000") }},
		{name: "cgroup_memory_high", hook: write, do: func(s *scene) error { return put(s.Cgroup+"/memory.high", "1048576000") }},
		{name: "cgroup_memory_max_above", hook: write, do: func(s *scene) error { return put(s.Parent+"/memory.max", "1048576000") }},
		{name: "cgroup_cpu_max", hook: write, do: func(s *scene) error { return put(s.Cgroup+"/cpu.max", "1000 100000") }},
		{name: "cgroup_pids_max", hook: write, do: func(s *scene) error { return put(s.Cgroup+"/pids.max", "1") }},
		{name: "cgroup_cpu_weight", hook: write, do: func(s *scene) error { return effectUnless(put(s.Cgroup+"/cpu.weight", "1")) }},
		{name: "cgroup_memory_oom_group", hook: write, do: func(s *scene) error { return effectUnless(put(s.Cgroup+"/memory.oom.group", "1")) }},
		{name: "cgroup_max_descendants", hook: write, do: func(s *scene) error {
			return effectUnless(put(s.Cgroup+"/cgroup.max.descendants", "0"))
		}},
		{name: "cgroup_max_depth_above", hook: write, do: func(s *scene) error {
			return effectUnless(put(s.Parent+"/cgroup.max.depth", "1"))
		}},
		{name: "cgroup_cpuset", hook: write, do: func(s *scene) error {
			return s.withController("cpuset", func() error { return put(s.Cgroup+"/cpuset.cpus", "0") })
		}},
		{name: "cgroup_io_max", hook: write, do: func(s *scene) error {
			return s.withController("io", func() error {
				var st unix.Stat_t
				if err := unix.Stat(s.Disk, &st); err != nil {
					return err
				}
				return put(s.Cgroup+"/io.max", fmt.Sprintf("%d:%d wbps=1000 rbps=1000", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
			})
		}},
		{name: "cgroup_setxattr", hook: "inode_setxattr", do: func(s *scene) error {
			return effectUnless(unix.Setxattr(s.Cgroup, "trusted.delegate", []byte("1"), 0))
		}},
		{name: "cgroup_subtree_control_above", hook: write, do: func(s *scene) error { return put(s.Parent+"/cgroup.subtree_control", "-memory") }},
		{name: "cgroup_move", hook: move, do: func(s *scene) error {
			return errors.Join(s.move(), effectIfThere(s))
		}},
		{name: "cgroup_move_to_root", hook: move, do: func(s *scene) error {
			return put(cgroup2.Root+"/cgroup.procs", strconv.Itoa(s.PID))
		}},
		{name: "cgroup_move_then_kill", hook: move, do: func(s *scene) error {
			return errors.Join(s.move(), put(s.Other+"/cgroup.kill", "1"))
		}},
		{name: "cgroup_move_then_memory_max", hook: move, do: func(s *scene) error {
			return errors.Join(s.move(), put(s.Other+"/memory.max", "0"), effectIfThere(s))
		}},
		{name: "cgroup_without_memory_then_move", hook: move, do: func(s *scene) error {
			return errors.Join(put(s.Other+"/memory.max", "0"), s.move(), effectIfThere(s), put(s.Other+"/memory.max", "max"))
		}},
		{name: "cgroup_join", hook: write, do: func(s *scene) error {
			return effectUnless(put(s.Cgroup+"/cgroup.procs", strconv.Itoa(os.Getpid())))
		}},
		{name: "cgroup_mkdir", hook: "inode_mkdir", do: func(s *scene) error {
			if err := os.Mkdir(s.Cgroup+"/below", 0o755); err != nil {
				return err
			}
			return errors.Join(errEffect, os.Remove(s.Cgroup+"/below"))
		}},
		{name: "cgroup_chmod", hook: "inode_setattr", do: func(s *scene) error { return effectUnless(os.Chmod(s.Cgroup+"/cgroup.procs", 0o666)) }},
		{name: "cgroup_freeze_then_move", possible: "a move is refused only where the kernel asks, and what is frozen cannot move itself back",
			do: func(s *scene) error { return errors.Join(put(s.Other+"/cgroup.freeze", "1"), s.move()) }},
		{name: "cgroup_clone_into", possible: "clone3(2) asks only for the right to write the directory, in a hook on every path; who is there is not trusted, and agent and keeper are never the kernel's choice when memory is short",
			do: func(s *scene) error {
				group, err := os.Open(s.Cgroup)
				if err != nil {
					return err
				}
				defer group.Close()
				cmd := exec.Command("/bin/sleep", "0")
				cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
				return effectUnless(cmd.Run())
			}},
		{name: "cgroup_v1_freezer", possible: "the older hierarchy's freezer can be mounted where nobody uses it, and a move into it has no hook either", do: func(s *scene) error {
			const dir = "/tmp/freezer"
			if err := errors.Join(os.MkdirAll(dir, 0o755), unix.Mount("cgroup", dir, "cgroup", 0, "freezer")); err != nil {
				return err
			}
			group := dir + "/attack"
			err := errors.Join(os.MkdirAll(group, 0o755), put(group+"/cgroup.procs", strconv.Itoa(s.PID)), put(group+"/freezer.state", "FROZEN"))
			for range 100 {
				if state, _ := os.ReadFile(group + "/freezer.state"); err == nil && string(state) == "FROZEN\n" {
					err = errEffect
				}
				time.Sleep(5 * time.Millisecond) //nolint:forbidigo // it freezes in the background
			}
			return errors.Join(err, put(group+"/freezer.state", "THAWED"), put(dir+"/cgroup.procs", strconv.Itoa(s.PID)), os.Remove(group), unix.Unmount(dir, unix.MNT_DETACH))
		}},
		{name: "cgroup_kill_fd_then_move", possible: "the descriptor was open before: only a hook on every write could see it; the service manager starts what was killed again",
			do: func(s *scene) error {
				f, err := os.OpenFile(s.Other+"/cgroup.kill", os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				for range 50 { // between the move and the way back
					_ = s.move()
					_, _ = f.WriteString("1")
				}
				return nil
			}},
	}
}

// withController does something with a controller that the service's control group does not have, and takes it away again. No step
// is left out because one before was refused.
func (s *scene) withController(name string, do func() error) error {
	errs := []error{put(cgroup2.Root+"/cgroup.subtree_control", "+"+name), put(s.Parent+"/cgroup.subtree_control", "+"+name), do()}
	for _, dir := range []string{s.Parent, cgroup2.Root} {
		_ = put(dir+"/cgroup.subtree_control", "-"+name)
	}
	return effectUnless(errors.Join(errs...))
}

// move moves the victim to the attackers' control group.
func (s *scene) move() error { return put(s.Other+"/cgroup.procs", strconv.Itoa(s.PID)) }

// effectIfThere says whether the victim stays in the attackers' control group.
func effectIfThere(s *scene) error {
	for range 40 {
		b, err := os.ReadFile(s.proc("cgroup"))
		if err != nil || strings.HasSuffix(string(b), "0::"+s.Service+"\n") {
			return err
		}
		time.Sleep(25 * time.Millisecond) //nolint:forbidigo // the victim needs a moment
	}
	return errEffect
}
