//go:build ignore
/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The process sensor's part inside the kernel: says which process started another (fork), became another program (exec)
 * and ended (exit), reads the processes that were there before, and keeps one cell of flags per pid. It decides nothing
 * and changes nothing. Every record that could not be sent is counted by its cause.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

/* Of the names that the kernel accepts for its GPL-only helpers, the one that fits: GPL-2.0 is one of this file's two licences. */
char LICENSE[] SEC("license") = "GPL";

/* Kinds of record; record.go has the same list. */
enum { KIND_EXEC = 1, KIND_FORK = 2, KIND_EXIT = 3, KIND_TASK = 4 };

/* One cell of 16 bits per pid: two flags, then how often the pid was forked and how often it executed since (both wrap).
 * User mode sets a flag by compare and swap, so that a flag meant for one program never lands on the next. */
enum { CELL_PLATFORM = 1, CELL_NEVER_ASK = 2, CELL_FORK = 1 << 2, CELL_FORK_MASK = 0x3f << 2, CELL_EXEC = 1 << 8 };

#define MAX_PID (4 * 1024 * 1024) /* PID_MAX_LIMIT of 64-bit kernels */
#define MAX_STEPS 160             /* components and mounts of one path */
#define NAME_SPACE 256            /* NAME_MAX and its zero */
#define ARGV_SPACE 4096
#define TAIL 16384 /* an offset into the scratch buffer stays below this; ARGV_SPACE more may follow */
#define INCOMPLETE (1u << 31)

struct header {
	__u16 kind;
	__u16 fixed; /* bytes before the variable part: a longer record of a newer object stays readable */
	__u32 size;
	__u64 time;
};

struct who {
	__u64 start;
	__u64 parent_start;
	__u64 cgroup;
	__u64 caps;
	__u32 pid, ppid;
	__u32 uid, euid, suid, fsuid;
	__u32 gid, egid, sgid, fsgid;
	__u32 cell;
	__u32 flags; /* 1: kernel thread */
	char comm[16];
	__u64 mount_ns;
};

struct image {
	__u64 ino;
	__s64 ctime, mtime, size;
	__u32 dev, mode, uid, gid;
	__u32 magic;
	__u32 flags; /* 1: the name is gone */
};

/* exec, and task (a process found by the iterator): the strings follow in the order of the lengths. */
struct exec {
	struct header h;
	struct who who;
	struct image image;
	__u32 argc, env_size;
	__u32 argv_size; /* whole, before cutting */
	__u32 incomplete; /* bit per string */
	__u32 exe_len, cwd_len, script_len, cgroup_len, cgroup1_len, argv_len;
};

struct fork {
	struct header h;
	struct who parent, child;
	__u32 cgroup_len, cgroup1_len;
};

struct exit {
	struct header h;
	struct who who;
	__u32 status; /* as wait(2) has it */
	__u32 reserved;
};

struct scratch {
	union {
		struct exec exec;
		struct fork fork;
		__u8 bytes[TAIL + ARGV_SPACE];
	};
};

/* Each program has its own scratch buffer: they must not disturb one another where they can be preempted. */
enum { SCRATCH_EXEC, SCRATCH_FORK, SCRATCH_TASK, SCRATCHES };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCHES);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 * 1024 * 1024);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_PID / 4);
	__type(key, __u32);
	__type(value, __u64); /* four cells: an array's values are 8 bytes apart */
} cells SEC(".maps");

/* What was counted since the object was loaded; while nobody wanted it, only in unwanted. */
struct counts {
	__u64 execs, forks, exits;                /* inside the agent's pid namespace */
	__u64 unwanted;                           /* execs and forks there that nobody wanted: no record */
	__u64 outside;                            /* not visible there: no record */
	__u64 lost_execs, lost_forks, lost_exits; /* the ring was full */
	__u64 lost_scratch;                       /* no buffer: cannot happen, counted all the same */
	__u64 argv_unread;                        /* an exec's arguments were not in memory */
};
volatile struct counts counts = {};
volatile const __u32 agent_pidns = 0; /* inode number of the agent's pid namespace */

/* 0 while nobody wants events or the tree: then only the cells are kept. Each program looks once, so that what it counts and
 * what it sends cannot differ. On a cache line of its own: the counters beside it change all the time. */
volatile __u64 wanted __attribute__((aligned(64))) = 0;

/* Waking the reader costs more than all the rest (an interrupt to this processor: 20 µs in a virtual machine). While nobody
 * needs the tree at once, it is woken at most once in this many nanoseconds; it looks again by itself after each waking. */
volatile __u64 quiet __attribute__((aligned(64))) = 0;
volatile __u64 last_wake = 0;

#define count(field) __sync_fetch_and_add(&counts.field, 1)

/* Pointers that come from a program's arguments are followed by plain loads, which the verifier knows to be safe: a tenth
 * of the cost of a helper call. Computed addresses need the helper. */

/* pid_in_agent returns a process's id in the agent's pid namespace, 0 if it is not visible there. In the first namespace, where an
 * agent usually is, every process is visible by the number that the kernel itself uses. */
static __always_inline __u32 pid_in_agent(struct task_struct *task)
{
	struct pid *pid;
	__u32 level;
	void *numbers;

	if (agent_pidns == PROC_PID_INIT_INO)
		return task->tgid;
	pid = task->signal->pids[PIDTYPE_TGID];
	level = pid->level;
	numbers = (void *)pid + bpf_core_field_offset(struct pid, numbers);
	for (__u32 i = 0; i < MAX_PID_NS_LEVEL && i <= level; i++) {
		struct upid *u = numbers + i * bpf_core_type_size(struct upid);

		if (BPF_CORE_READ(u, ns, ns.inum) == agent_pidns)
			return BPF_CORE_READ(u, nr);
	}
	return 0;
}

static __always_inline __u16 *cell_of(__u32 pid)
{
	__u32 index = pid / 4;
	__u64 *four = bpf_map_lookup_elem(&cells, &index);

	return four ? (__u16 *)four + (pid & 3) : 0;
}

static __always_inline void fill_who(struct who *w, struct task_struct *task, __u32 pid)
{
	struct task_struct *leader = task->group_leader;
	struct task_struct *parent = leader->real_parent->group_leader;
	const struct cred *cred = task->cred;
	__u16 *cell = cell_of(pid);

	w->start = leader->start_boottime;
	w->pid = pid;
	w->ppid = pid_in_agent(parent);
	w->parent_start = w->ppid ? parent->start_boottime : 0;
	w->cgroup = task->cgroups->dfl_cgrp->kn->id;
	w->uid = cred->uid.val;
	w->euid = cred->euid.val;
	w->suid = cred->suid.val;
	w->fsuid = cred->fsuid.val;
	w->gid = cred->gid.val;
	w->egid = cred->egid.val;
	w->sgid = cred->sgid.val;
	w->fsgid = cred->fsgid.val;
	bpf_core_read(&w->caps, sizeof(w->caps), &cred->cap_effective);
	w->cell = cell ? *cell : 0;
	w->flags = task->flags & PF_KTHREAD ? 1 : 0;
	w->mount_ns = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
	BPF_CORE_READ_INTO(&w->comm, leader, comm); /* the process's name, not one thread's */
}

static __always_inline void fill_times(struct image *im, struct inode *inode)
{
	struct inode___before_6_6 *old = (void *)inode;
	struct inode___6_6 *mid = (void *)inode;

	if (bpf_core_field_exists(inode->i_ctime_sec)) {
		im->ctime = BPF_CORE_READ(inode, i_ctime_sec) * 1000000000 + (BPF_CORE_READ(inode, i_ctime_nsec) & ~I_CTIME_QUERIED);
		im->mtime = BPF_CORE_READ(inode, i_mtime_sec) * 1000000000 + BPF_CORE_READ(inode, i_mtime_nsec);
		return;
	}
	if (bpf_core_field_exists(mid->__i_ctime))
		im->ctime = BPF_CORE_READ(mid, __i_ctime.tv_sec) * 1000000000 + BPF_CORE_READ(mid, __i_ctime.tv_nsec);
	else
		im->ctime = BPF_CORE_READ(old, i_ctime.tv_sec) * 1000000000 + BPF_CORE_READ(old, i_ctime.tv_nsec);
	if (bpf_core_field_exists(mid->__i_mtime))
		im->mtime = BPF_CORE_READ(mid, __i_mtime.tv_sec) * 1000000000 + BPF_CORE_READ(mid, __i_mtime.tv_nsec);
	else
		im->mtime = BPF_CORE_READ(old, i_mtime.tv_sec) * 1000000000 + BPF_CORE_READ(old, i_mtime.tv_nsec);
}

static __always_inline void fill_image(struct image *im, struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);

	im->ino = BPF_CORE_READ(inode, i_ino);
	im->size = BPF_CORE_READ(inode, i_size);
	im->mode = BPF_CORE_READ(inode, i_mode);
	im->uid = BPF_CORE_READ(inode, i_uid.val);
	im->gid = BPF_CORE_READ(inode, i_gid.val);
	im->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	im->magic = BPF_CORE_READ(inode, i_sb, s_magic);
	im->flags = BPF_CORE_READ(dentry, d_hash.pprev) ? 0 : 1;
	fill_times(im, inode);
}

/* append_name copies a string of at most NAME_SPACE bytes with its zero to the offset and returns the offset behind it. */
static __always_inline __u32 append_name(struct scratch *s, __u32 off, const void *name)
{
	long n;

	asm volatile("" : "+r"(off)); /* or clang drops the bound that the verifier needs */
	if (off >= TAIL)
		return off | INCOMPLETE;
	n = bpf_probe_read_kernel_str(&s->bytes[off & (TAIL - 1)], NAME_SPACE, name);
	return n > 0 ? off + n : off | INCOMPLETE;
}

/* append_path writes the names of a path, last one first, up to the root of its mount namespace. A function of its own:
 * the verifier checks it once. Names may mix if a directory is renamed in the middle of the walk. */
__noinline int append_path(__u32 slot, __u64 dentry_address, __u64 mnt_address, __u32 off)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &slot);
	struct dentry *dentry = (void *)dentry_address;
	struct mount *mnt = (void *)mnt_address - bpf_core_field_offset(struct mount, mnt);

	if (!s)
		return off;
	for (int i = 0; i < MAX_STEPS; i++) {
		struct dentry *parent = BPF_CORE_READ(dentry, d_parent);

		if (dentry == BPF_CORE_READ(mnt, mnt.mnt_root)) {
			struct mount *above = BPF_CORE_READ(mnt, mnt_parent);

			if (above == mnt)
				return off;
			dentry = BPF_CORE_READ(mnt, mnt_mountpoint);
			mnt = above;
			continue;
		}
		off = append_name(s, off, BPF_CORE_READ(dentry, d_name.name));
		if (off & INCOMPLETE || parent == dentry) /* a file without a directory, such as a memfd */
			return off;
		dentry = parent;
	}
	return off | INCOMPLETE;
}

static __always_inline struct kernfs_node *above(struct kernfs_node *kn)
{
	if (bpf_core_field_exists(kn->__parent))
		return BPF_CORE_READ(kn, __parent);
	return BPF_CORE_READ((struct kernfs_node___before_6_15 *)kn, parent);
}

/* append_cgroup writes the names of a cgroup's path, last one first. */
__noinline int append_cgroup(__u32 slot, __u64 kn_address, __u32 off)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &slot);
	struct kernfs_node *kn = (void *)kn_address;

	if (!s)
		return off;
	for (int i = 0; i < 32; i++) {
		struct kernfs_node *up = above(kn);

		if (!up)
			return off;
		off = append_name(s, off, BPF_CORE_READ(kn, name));
		if (off & INCOMPLETE)
			return off;
		kn = up;
	}
	return off | INCOMPLETE;
}

static __always_inline __u64 cgroup2(struct task_struct *task)
{
	return (__u64)BPF_CORE_READ(task, cgroups, dfl_cgrp, kn);
}

/* cgroup1 returns the node of the memory controller's cgroup (or that of pids): where there are only version 1
 * hierarchies, containers show there. On a pure version 2 system it is the node that cgroup2 returns. */
static __always_inline __u64 cgroup1(struct task_struct *task)
{
	void *subsys = (void *)BPF_CORE_READ(task, cgroups) + bpf_core_field_offset(struct css_set, subsys);
	struct cgroup_subsys_state *css = 0;
	__u64 index;

	if (bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		index = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	else if (bpf_core_enum_value_exists(enum cgroup_subsys_id, pids_cgrp_id))
		index = bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id);
	else
		return 0;
	bpf_probe_read_kernel(&css, sizeof(css), subsys + index * sizeof(css));
	return (__u64)BPF_CORE_READ(css, cgroup, kn);
}

/* A string's length, and whether it is incomplete, from the offset before and behind it. */
#define finish(record, field, bit, before, after)                                                                      \
	do {                                                                                                           \
		if (after & INCOMPLETE)                                                                                \
			(record)->incomplete |= bit;                                                                   \
		after &= ~INCOMPLETE;                                                                                  \
		(record)->field = after - before;                                                                      \
	} while (0)

/* fill_program writes what exec and task records share, and returns the offset behind it. */
static __always_inline __u32 fill_program(struct scratch *s, __u32 slot, struct task_struct *task)
{
	struct exec *e = &s->exec;
	struct file *file = BPF_CORE_READ(task, mm, exe_file);
	__u32 at = sizeof(*e), next = at;
	__u64 v1 = cgroup1(task), v2 = cgroup2(task);

	__builtin_memset(&e->image, 0, sizeof(e->image));
	e->incomplete = e->exe_len = e->cwd_len = e->script_len = 0;
	e->cgroup1_len = e->argv_len = e->argv_size = e->argc = e->env_size = 0;
	if (file) {
		fill_image(&e->image, file);
		next = append_path(slot, (__u64)BPF_CORE_READ(file, f_path.dentry), (__u64)BPF_CORE_READ(file, f_path.mnt), at);
		finish(e, exe_len, 1, at, next);
	}
	at = next;
	next = append_cgroup(slot, v2, at);
	finish(e, cgroup_len, 2, at, next);
	at = next;
	if (v1 && v1 != v2) {
		next = append_cgroup(slot, v1, at);
		finish(e, cgroup1_len, 4, at, next);
	}
	return next;
}

static __always_inline void start(struct header *h, __u16 kind, __u16 fixed)
{
	h->kind = kind;
	h->fixed = fixed;
	h->time = bpf_ktime_get_boot_ns();
}

static __always_inline __u64 wakeup(struct header *h)
{
	__u64 interval = quiet;

	if (!interval)
		return h->kind == KIND_EXIT ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP;
	if (h->time - last_wake < interval)
		return BPF_RB_NO_WAKEUP;
	last_wake = h->time;
	return BPF_RB_FORCE_WAKEUP;
}

static __always_inline long send(struct scratch *s, struct header *h, __u32 size)
{
	h->size = size;
	asm volatile("" : "+r"(size));
	if (size > sizeof(*s))
		return -1;
	return bpf_ringbuf_output(&ring, s, size, wakeup(h));
}

static __always_inline __u32 append_argv(struct scratch *s, struct task_struct *task, __u32 off)
{
	struct exec *e = &s->exec;
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	unsigned long from = BPF_CORE_READ(mm, arg_start);
	unsigned long size = BPF_CORE_READ(mm, arg_end) - from;

	e->env_size = BPF_CORE_READ(mm, env_end) - BPF_CORE_READ(mm, env_start);
	e->argv_size = size;
	if (size > ARGV_SPACE)
		size = ARGV_SPACE;
	asm volatile("" : "+r"(off), "+r"(size));
	if (off >= TAIL || size > ARGV_SPACE)
		return off;
	if (bpf_probe_read_user(&s->bytes[off & (TAIL - 1)], size, (void *)from)) {
		e->incomplete |= 32;
		count(argv_unread);
		return off;
	}
	e->argv_len = size;
	return off + size;
}

static __always_inline __u32 append_script(struct scratch *s, struct linux_binprm *bprm, __u32 off)
{
	const char *filename = BPF_CORE_READ(bprm, filename);
	long n;

	asm volatile("" : "+r"(off));
	if (filename == BPF_CORE_READ(bprm, interp) || off >= TAIL)
		return off;
	n = bpf_probe_read_kernel_str(&s->bytes[off & (TAIL - 1)], ARGV_SPACE, filename);
	if (n <= 0)
		return off;
	s->exec.script_len = n;
	return off + n;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	__u32 slot = SCRATCH_EXEC, pid = pid_in_agent(task), at, next;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &slot);
	__u16 *cell = cell_of(pid);

	if (!pid) {
		count(outside);
		return 0;
	}
	if (cell)
		*cell = (*cell & (CELL_PLATFORM | CELL_FORK_MASK)) | ((*cell + CELL_EXEC) & 0xff00);
	if (!wanted) {
		count(unwanted);
		return 0;
	}
	count(execs);
	if (!s) {
		count(lost_scratch);
		return 0;
	}
	start(&s->exec.h, KIND_EXEC, sizeof(s->exec));
	fill_who(&s->exec.who, task, pid);
	at = fill_program(s, slot, task);
	s->exec.argc = BPF_CORE_READ(bprm, argc);
	next = append_path(slot, (__u64)BPF_CORE_READ(task, fs, pwd.dentry), (__u64)BPF_CORE_READ(task, fs, pwd.mnt), at);
	finish(&s->exec, cwd_len, 8, at, next);
	next = append_script(s, bprm, next);
	next = append_argv(s, task, next);
	if (send(s, &s->exec.h, next))
		count(lost_execs);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	__u32 slot = SCRATCH_FORK, pid, at = sizeof(struct fork), next;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &slot);
	__u32 parent_pid;
	__u16 *cell, *parents;
	__u64 v1, v2;

	if (child->pid != child->tgid)
		return 0; /* a thread */
	pid = pid_in_agent(child);
	if (!pid) {
		count(outside);
		return 0;
	}
	parent_pid = pid_in_agent(parent);
	cell = cell_of(pid);
	parents = cell_of(parent_pid);
	if (cell)
		*cell = ((*cell + CELL_FORK) & CELL_FORK_MASK) | (parent_pid && parents ? *parents & CELL_PLATFORM : 0);
	if (!wanted) {
		count(unwanted);
		return 0;
	}
	count(forks);
	if (!s) {
		count(lost_scratch);
		return 0;
	}
	start(&s->fork.h, KIND_FORK, sizeof(s->fork));
	fill_who(&s->fork.parent, parent, parent_pid);
	fill_who(&s->fork.child, child, pid);
	v1 = cgroup1(child);
	v2 = cgroup2(child);
	next = append_cgroup(slot, v2, at) & ~INCOMPLETE;
	s->fork.cgroup_len = next - at;
	s->fork.cgroup1_len = 0;
	at = next;
	if (v1 && v1 != v2) {
		next = append_cgroup(slot, v1, at) & ~INCOMPLETE;
		s->fork.cgroup1_len = next - at;
	}
	if (send(s, &s->fork.h, next))
		count(lost_forks);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	struct signal_struct *signal = task->signal;
	struct exit e = {};
	__u32 pid;

	if (!wanted)
		return 0;
	if (BPF_CORE_READ(signal, live.counter) > 0)
		return 0; /* other threads go on */
	pid = pid_in_agent(task);
	if (!pid) {
		count(outside);
		return 0;
	}
	count(exits); /* two last threads may both come here: user mode keeps the first */
	start(&e.h, KIND_EXIT, sizeof(e));
	e.h.size = sizeof(e);
	fill_who(&e.who, task, pid);
	e.status = BPF_CORE_READ(signal, flags) & SIGNAL_GROUP_EXIT ? BPF_CORE_READ(signal, group_exit_code)
								    : BPF_CORE_READ(task, group_leader, exit_code);
	if (bpf_ringbuf_output(&ring, &e, sizeof(e), wakeup(&e.h)))
		count(lost_exits);
	return 0;
}

/* The iterator visits every task of the reader's pid namespace. */
SEC("iter/task")
int process_task(struct bpf_iter__task *ctx)
{
	__u32 slot = SCRATCH_TASK, pid, size;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &slot);
	struct task_struct *task = ctx->task;

	if (!task || !s || BPF_CORE_READ(task, pid) != BPF_CORE_READ(task, tgid))
		return 0;
	if (BPF_CORE_READ(task, signal, live.counter) <= 0)
		return 0; /* a zombie does nothing any more; its exit was or will be said */
	pid = pid_in_agent(task);
	if (!pid)
		return 0;
	start(&s->exec.h, KIND_TASK, sizeof(s->exec));
	fill_who(&s->exec.who, task, pid);
	size = fill_program(s, slot, task);
	s->exec.h.size = size;
	asm volatile("" : "+r"(size));
	if (size <= sizeof(*s))
		bpf_seq_write(ctx->meta->seq, s, size);
	return 0;
}
