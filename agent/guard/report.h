/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What user mode is told of attempts. */
#ifndef BAILEY_GUARD_REPORT_H
#define BAILEY_GUARD_REPORT_H

/* The hooks by number; attempt.go has the same list. */
enum hook {
	HOOK_NONE,
	HOOK_TASK_KILL,
	HOOK_SIGIO,
	HOOK_PTRACE,
	HOOK_SETNICE,
	HOOK_SETSCHEDULER,
	HOOK_SETIOPRIO,
	HOOK_SETRLIMIT,
	HOOK_MOVEMEMORY,
	HOOK_PROC_WRITE,
	HOOK_SYSCTL,
	HOOK_SYSRQ,
	HOOK_CGROUP_WRITE,
	HOOK_CGROUP_MOVE,
	HOOK_DISK_WRITE,
	HOOK_FILE_WRITE,
	HOOK_IOCTL,
	HOOK_CREATE,
	HOOK_LINK,
	HOOK_UNLINK,
	HOOK_SYMLINK,
	HOOK_MKDIR,
	HOOK_RMDIR,
	HOOK_MKNOD,
	HOOK_RENAME,
	HOOK_SETATTR,
	HOOK_SETXATTR,
	HOOK_REMOVEXATTR,
	HOOK_SETACL,
	HOOK_MOUNT,
	HOOK_REMOUNT,
	HOOK_UMOUNT,
	HOOK_MOVE_MOUNT,
	HOOK_PIVOT_ROOT,
	HOOK_BPF,
	HOOK_BPF_MAP,
	HOOK_LOCKED_DOWN,
	HOOK_KEXEC,
	HOOK_NOTIFY,
	HOOK_UNIT,
	HOOK_PERF,
	HOOKS,
};

struct attempt {
	__u64 time;
	__u64 start; /* of the culprit's process */
	__u64 target_start;
	__u64 ino;
	__u64 detail;     /* signal, request, mode, by the hook */
	__u64 suppressed; /* like this one since the last that was sent */
	__u32 pid, thread, uid;
	__u32 target; /* process id, 0 for none */
	__u32 dev;
	__u16 hook;
	__u8 refused;
	__u8 reserved;
	char comm[16];
	char name[64]; /* of the file, without directories */
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} attempts SEC(".maps");

/* How often each hook refused, and how often nobody could be told of it. */
struct tally {
	__u64 refused, lost;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HOOKS);
	__type(key, __u32);
	__type(value, struct tally);
} tallies SEC(".maps");

static __always_inline struct tally *count(__u32 hook)
{
	struct tally *tally = bpf_map_lookup_elem(&tallies, &hook);

	if (tally)
		__sync_fetch_and_add(&tally->refused, 1);
	return tally;
}

static __noinline void report(__u32 hook, struct dentry *d, struct process *target, __u64 detail, __u32 pid)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct recent_key key = {};
	__u64 now, suppressed = 0;
	struct tally *tally;
	struct inode *inode;
	struct attempt *a;

	tally = count(hook);
	if (!tally)
		return;
	key.pid = task->tgid;
	key.what = hook;
	key.target = pid;
	inode = d ? d->d_inode : 0; /* read once: what newer kernels want to be asked is this very pointer */
	if (inode)
		key.ino = inode->i_ino;
	now = bpf_ktime_get_boot_ns();
	if (!is_due(&key, now, &suppressed))
		return;
	a = bpf_ringbuf_reserve(&attempts, sizeof(*a), 0);
	if (!a) {
		__sync_fetch_and_add(&tally->lost, 1 + suppressed);
		return;
	}
	a->time = now;
	a->start = task->group_leader->start_boottime;
	a->target_start = target ? target->start : 0;
	a->ino = key.ino;
	a->detail = detail;
	a->suppressed = suppressed;
	a->pid = task->tgid;
	a->thread = task->pid;
	a->uid = bpf_get_current_uid_gid();
	a->target = pid;
	a->dev = d ? d->d_sb->s_dev : 0;
	a->hook = hook;
	a->refused = hook != HOOK_CGROUP_MOVE && !(control.policy & OBSERVE);
	a->reserved = 0;
	bpf_get_current_comm(a->comm, sizeof(a->comm));
	if (!d || bpf_probe_read_kernel_str(a->name, sizeof(a->name), d->d_name.name) < 0)
		a->name[0] = 0;
	bpf_ringbuf_submit(a, 0);
}

/* The three ways to refuse: something done to a process, to a file, or to the machine. */
static __always_inline int answer(void)
{
	return control.policy & OBSERVE ? 0 : -EPERM;
}

static __always_inline int refuse_process(__u32 hook, __u32 tgid, __u64 start, __u64 detail)
{
	struct process target = {.start = start};

	report(hook, 0, &target, detail, tgid);
	return answer();
}

static __always_inline int refuse_file(__u32 hook, struct dentry *d, __u64 detail)
{
	report(hook, d, 0, detail, 0);
	return answer();
}

static __always_inline int refuse(__u32 hook, __u64 detail)
{
	report(hook, 0, 0, detail, 0);
	return answer();
}

#endif
