/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* How processes become and stop being trusted, and how files and processes become known. */
#ifndef BAILEY_GUARD_TRUST_H
#define BAILEY_GUARD_TRUST_H

static __always_inline struct kernfs_node *above(struct kernfs_node *kn)
{
	struct kernfs_node___before_6_15 *old = (void *)kn;

	return bpf_core_field_exists(old->parent) ? BPF_CORE_READ(old, parent) : BPF_CORE_READ(kn, __parent);
}

static __always_inline void enter(__u32 dev, __u64 ino, __u32 flags)
{
	struct place at = {.ino = ino, .dev = dev};
	__u32 *have = bpf_map_lookup_elem(&roots, &at);

	sift(ino, dev, flags);
	if (have) {
		__sync_fetch_and_or(have, flags & ~TEMPORARY);
		return;
	}
	bpf_map_update_elem(&roots, &at, &flags, BPF_ANY);
}

/* enter_cgroup enters a cgroup, and those above it as such. */
static __noinline void enter_cgroup(struct kernfs_node *kn, __u32 flags, __u32 above_flags)
{
	__u32 dev = control.cgroup_dev;
	int i;

	for (i = 0; i < MAX_CGROUP + 1 && kn; i++) {
		enter(dev, BPF_CORE_READ(kn, id), flags);
		flags = above_flags;
		kn = above(kn);
	}
}

/* in_unit says whether a cgroup is exactly the service's. A new start of the service has a new cgroup of the same name. */
static __noinline bool in_unit(struct kernfs_node *kn)
{
	int depth = control.unit_depth, i, j;
	char name[UNIT_SPACE];

	if (!depth)
		return 0;
	for (i = 0; i < MAX_CGROUP; i++) {
		struct kernfs_node *up = above(kn);

		if (!up) /* kn is the hierarchy's root */
			return i == depth;
		if (i >= depth)
			return 0;
		if (bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(kn, name)) < 0)
			return 0;
		for (j = 0; j < UNIT_SPACE; j++) {
			if (name[j] != control.unit[i][j])
				return 0;
			if (!name[j])
				break;
		}
		kn = up;
	}
	return 0;
}

static __always_inline void set_role(__u32 tgid, __u64 start, __u32 role)
{
	struct process value = {.start = start, .role = role};

	if (role)
		bpf_map_update_elem(&processes, &tgid, &value, BPF_ANY);
	else
		bpf_map_delete_elem(&processes, &tgid);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(forked, struct task_struct *parent, struct task_struct *child)
{
	__u32 role;

	if (parent->tgid == child->tgid)
		return 0;
	role = role_of(parent);
	if ((__u32)parent->tgid == control.manager)
		role |= STARTED;
	if (role)
		set_role(child->tgid, child->start_boottime, role);
	return 0;
}

/* A process keeps its trust while it executes trusted programs. One that had none gets it only if the service manager made it and
 * it is in the service's cgroup: root may execute the program by hand with any arguments, and is not trusted. That its parent is
 * the service manager would not do: every orphan's is. Nor would the cgroup: clone3(2) enters any. */
SEC("lsm/bprm_committed_creds")
int BPF_PROG(executed, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 start = task->group_leader->start_boottime;
	__u32 flags = flags_of(bprm->file->f_inode), tgid = task->tgid, role;
	struct kernfs_node *kn;
	struct process *p;

	if (tgid == control.manager) {
		if (flags & SHUTDOWN)
			control.shutting_down = 1;
		return 0;
	}
	p = bpf_map_lookup_elem(&processes, &tgid);
	if (!p || p->start != start)
		return 0;
	role = p->role;
	if (!(flags & PROGRAM) || task->ptrace)
		role &= ~TRUSTED;
	else if (role == STARTED) {
		kn = task->cgroups->dfl_cgrp->kn;
		if (in_unit(kn)) {
			role = TRUSTED | PROTECTED;
			enter_cgroup(kn, TREE, ANCESTOR);
		}
	}
	p->role = role;
	return 0;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(freed, struct task_struct *task)
{
	__u32 tgid = task->tgid;
	struct process *p;

	if (task->pid != task->tgid)
		return 0;
	p = bpf_map_lookup_elem(&processes, &tgid);
	if (p && p->start == task->start_boottime)
		bpf_map_delete_elem(&processes, &tgid);
	return 0;
}

/* A move to another cgroup has no hook that could refuse it. The cgroup is protected from then on, so that it can be neither
 * killed nor frozen, and user mode moves the process back. */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(moved, struct cgroup *to, const char *path, struct task_struct *task, bool threadgroup)
{
	struct process target = {};

	if (!active() || !role_of(task) || current_role() & TRUSTED || to->root->hierarchy_id != 0)
		return 0;
	/* Not with all below: it may be half of the machine. */
	enter_cgroup(to->kn, ANCESTOR | TEMPORARY, ANCESTOR | TEMPORARY);
	target.start = task->group_leader->start_boottime;
	report(HOOK_CGROUP_MOVE, 0, &target, to->kn->id, task->tgid);
	return 0;
}

/* learn enters what a trusted thread opens: user mode does not know every filesystem's own numbers. */
static __noinline void learn(struct inode *inode)
{
	struct proc_inode *proc = (void *)inode - bpf_core_field_offset(struct proc_inode, vfs_inode);
	struct place at = {.ino = inode->i_ino, .dev = inode->i_sb->s_dev};
	__u32 flags = control.learn_flags, one = 1;

	control.learned++;
	if (inode->i_sb->s_magic == PROC_SUPER_MAGIC) {
		struct hlist_node *first = BPF_CORE_READ(proc, pid, tasks[0].first);
		struct task_struct *task = (void *)first - bpf_core_field_offset(struct task_struct, pid_links[0]);

		if (first)
			set_role(BPF_CORE_READ(task, tgid), BPF_CORE_READ(task, group_leader, start_boottime), flags);
		return;
	}
	if (!flags) {
		bpf_map_delete_elem(&roots, &at);
		return;
	}
	bpf_map_update_elem(&devices, &at.dev, &one, BPF_ANY);
	enter(at.dev, at.ino, flags);
}

#endif
