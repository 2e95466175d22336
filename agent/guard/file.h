/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What is done to files, directories, cgroups' files, /proc, pins and disks. */
#ifndef BAILEY_GUARD_FILE_H
#define BAILEY_GUARD_FILE_H

/* write_proc: /proc/PID (mem, oom_score_adj, attr), the switch that turns every BPF LSM program off, and the keyboard's
 * emergency calls, whose signals come to no hook. */
static __always_inline int write_proc(struct dentry *d, struct inode *inode)
{
	struct proc_inode *proc = (void *)inode - bpf_core_field_offset(struct proc_inode, vfs_inode);
	struct pid *pid = BPF_CORE_READ(proc, pid);
	struct hlist_node *first;
	struct task_struct *task;
	__u32 tgid, role;
	__u64 start;

	if (!pid) {
		if (named(d, "ftrace_enabled") && !(current_role() & TRUSTED))
			return refuse_file(HOOK_SYSCTL, d, 0);
		if (named(d, "sysrq-trigger") && !(current_role() & TRUSTED))
			return refuse_file(HOOK_SYSRQ, d, 0);
		return 0;
	}
	first = BPF_CORE_READ(pid, tasks[0].first);
	if (!first)
		return 0;
	task = (void *)first - bpf_core_field_offset(struct task_struct, pid_links[0]);
	tgid = BPF_CORE_READ(task, tgid);
	start = BPF_CORE_READ(task, group_leader, start_boottime);
	role = role_by(tgid, start);
	if (!role || tgid == current_tgid() || may(role))
		return 0;
	return refuse_process(HOOK_PROC_WRITE, tgid, start, 0);
}

/* write_cgroup: a cgroup above a protected one has files that kill, freeze and starve everything below. One that a protected
 * process was moved into frozen must be thawed by whoever can. */
static __always_inline int write_cgroup(struct dentry *d)
{
	__u32 flags = covered(d);

	if (flags)
		return may_change() ? 0 : refuse_file(HOOK_CGROUP_WRITE, d, 0);
	flags = flags_of(d->d_parent->d_inode);
	if (!(flags & ANCESTOR) || (flags & TEMPORARY && named(d, "cgroup.freeze")))
		return 0;
	if (named(d, "cgroup.procs") || named(d, "cgroup.threads") || named(d, "tasks"))
		return 0;
	if (by_manager() && !named(d, "cgroup.kill") && !named(d, "cgroup.freeze"))
		return 0;
	if (current_role() & TRUSTED)
		return 0;
	return refuse_file(HOOK_CGROUP_WRITE, d, 0);
}

/* among says whether a device is in a list that ends with a 0. */
static __always_inline bool among(volatile __u32 *list, int size, __u32 rdev)
{
	int i;

	for (i = 0; i < size; i++) {
		if (!list[i])
			return 0;
		if (list[i] == rdev)
			return 1;
	}
	return 0;
}

/* our_disk says whether a file is a device through which what is below protected files can be written. */
static __always_inline bool our_disk(struct inode *inode)
{
	switch (inode->i_mode & S_IFMT) {
	case S_IFBLK:
		return among(control.disks, MAX_DISKS, inode->i_rdev);
	case S_IFCHR:
		return among(control.generics, MAX_GENERICS, inode->i_rdev);
	}
	return 0;
}

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *file)
{
	struct inode *inode = file->f_inode;
	struct dentry *d;
	__u64 magic;

	if (control.learn_thread && control.learn_thread == (__u32)bpf_get_current_pid_tgid())
		learn(inode);
	if (!(file->f_mode & FMODE_WRITE) || !active())
		return 0;
	d = file->f_path.dentry;
	magic = inode->i_sb->s_magic;
	if (magic == PROC_SUPER_MAGIC)
		return write_proc(d, inode);
	if (our_disk(inode) && !(current_role() & TRUSTED))
		return refuse_file(HOOK_DISK_WRITE, d, inode->i_rdev);
	if (magic == CGROUP2_SUPER_MAGIC || magic == CGROUP_SUPER_MAGIC)
		return write_cgroup(d);
	if (covered(d) && !may_change())
		return refuse_file(HOOK_FILE_WRITE, d, 0);
	return 0;
}

static __always_inline int ioctl(struct file *file, unsigned int cmd)
{
	struct inode *inode;

	switch (cmd) {
	case FS_IOC_SETFLAGS:
	case FS_IOC32_SETFLAGS:
	case FS_IOC_SETVERSION:
	case FS_IOC_FSSETXATTR:
	case FS_IOC_SET_ENCRYPTION_POLICY:
	case FS_IOC_ENABLE_VERITY:
		if (active() && covered(file->f_path.dentry) && !may_change())
			return refuse_file(HOOK_IOCTL, file->f_path.dentry, cmd);
		return 0;
	case FIFREEZE:
	case FS_IOC_SHUTDOWN:
	case FS_IOC_SETFSLABEL: /* by these names it is mounted at the next boot */
	case EXT4_IOC_SETFSUUID:
		inode = file->f_inode;
		if (active() && bpf_map_lookup_elem(&devices, &(__u32){inode->i_sb->s_dev}) && !(current_role() & TRUSTED))
			return refuse_file(HOOK_IOCTL, file->f_path.dentry, cmd);
		return 0;
	case BLKROSET:
	case BLKRRPART:
	case BLKPG:
	case LOOP_CLR_FD:
	case LOOP_SET_STATUS:
	case LOOP_SET_STATUS64:
	case LOOP_CHANGE_FD:
	case LOOP_SET_CAPACITY:
	case LOOP_SET_DIRECT_IO:
	case LOOP_SET_BLOCK_SIZE:
	case SG_IO:
	case SG_SCSI_RESET:
	case SCSI_IOCTL_SEND_COMMAND:
	case SCSI_IOCTL_START_UNIT:
	case SCSI_IOCTL_STOP_UNIT:
	case NVME_IOCTL_ADMIN_CMD:
	case NVME_IOCTL_IO_CMD:
	case NVME_IOCTL_SUBMIT_IO:
		inode = file->f_inode;
		if (our_disk(inode) && active() && !(current_role() & TRUSTED))
			return refuse_file(HOOK_IOCTL, file->f_path.dentry, cmd);
	}
	return 0;
}

SEC("lsm/file_ioctl")
int BPF_PROG(file_ioctl, struct file *file, unsigned int cmd, unsigned long arg)
{
	return ioctl(file, cmd);
}

SEC("lsm/file_ioctl_compat")
int BPF_PROG(file_ioctl_compat, struct file *file, unsigned int cmd, unsigned long arg)
{
	return ioctl(file, cmd);
}

/* of_unit says whether a name says how the service manager starts the agent, in whichever of its directories: the unit, a link to
 * it, its drop-ins, or drop-ins for all services. What is called so may not exist yet, so it cannot be known by its inode. */
#define SERVICE_DOT 0x2e65636976726573ull /* "service." */
static __noinline bool of_unit(struct dentry *d)
{
	char name[UNIT_SPACE] = {};
	__u64 first = 0;
	int i;

	if (!control.unit_depth)
		return 0;
	bpf_probe_read_kernel(&first, sizeof(first), d->d_name.name);
	if (first == SERVICE_DOT && named(d, "service.d"))
		return 1;
	if (first != *(volatile __u64 *)&control.unit[0][0])
		return 0;
	bpf_probe_read_kernel_str(name, sizeof(name), d->d_name.name);
	for (i = 0; i < UNIT_SPACE; i++) {
		char want = control.unit[0][i];

		if (!want)
			return !name[i] || name[i] == '.';
		if (name[i] != want)
			return 0;
	}
	return 0;
}

static __always_inline int change_unit(struct dentry *d)
{
	if (d->d_sb->s_dev == control.cgroup_dev || !(of_unit(d) || of_unit(d->d_parent)) || current_role() & TRUSTED)
		return 0;
	return refuse_file(HOOK_UNIT, d, 0);
}

/* change decides about a change of a name or an inode. */
static __always_inline int change(__u32 hook, struct dentry *d)
{
	if (!active() || !covered(d) || may_change())
		return 0;
	return refuse_file(hook, d, 0);
}

/* make decides about a new name. */
static __always_inline int make(__u32 hook, struct dentry *d)
{
	if (!active())
		return 0;
	if (covered(d) && !may_change())
		return refuse_file(hook, d, 0);
	return change_unit(d);
}

/* displace decides about a change that takes a name from its place, with all that lies below. */
static __always_inline int displace(__u32 hook, struct dentry *d)
{
	if (!active())
		return 0;
	if (!(flags_of(d->d_inode) & ANCESTOR) && !covered(d))
		return change_unit(d);
	if (may_change())
		return 0;
	return refuse_file(hook, d, 0);
}

SEC("lsm/inode_create")
int BPF_PROG(inode_create, struct inode *dir, struct dentry *d, unsigned short mode)
{
	return make(HOOK_CREATE, d);
}

/* A link elsewhere would be another way to the same file. */
SEC("lsm/inode_link")
int BPF_PROG(inode_link, struct dentry *old, struct inode *dir, struct dentry *new)
{
	int err = change(HOOK_LINK, old);

	return err ? err : make(HOOK_LINK, new);
}

SEC("lsm/inode_unlink")
int BPF_PROG(inode_unlink, struct inode *dir, struct dentry *d)
{
	return displace(HOOK_UNLINK, d);
}

SEC("lsm/inode_symlink")
int BPF_PROG(inode_symlink, struct inode *dir, struct dentry *d, const char *to)
{
	return make(HOOK_SYMLINK, d);
}

/* The service manager makes directories named for the unit at each start (/run/systemd/propagate); drop-ins are files in one. */
SEC("lsm/inode_mkdir")
int BPF_PROG(inode_mkdir, struct inode *dir, struct dentry *d, unsigned short mode)
{
	return change(HOOK_MKDIR, d);
}

/* The service manager removes the cgroups of services that ended; the kernel lets it remove none with a process in it. */
SEC("lsm/inode_rmdir")
int BPF_PROG(inode_rmdir, struct inode *dir, struct dentry *d)
{
	if (by_manager() && d->d_sb->s_dev == control.cgroup_dev)
		return 0;
	return displace(HOOK_RMDIR, d);
}

SEC("lsm/inode_mknod")
int BPF_PROG(inode_mknod, struct inode *dir, struct dentry *d, unsigned short mode, __u32 dev)
{
	return make(HOOK_MKNOD, d);
}

SEC("lsm/inode_rename")
int BPF_PROG(inode_rename, struct inode *old_dir, struct dentry *old, struct inode *new_dir, struct dentry *new)
{
	int err = displace(HOOK_RENAME, old);

	return err ? err : displace(HOOK_RENAME, new);
}

/* Truncation, modes, owners and times. */
SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr, struct dentry *d, struct iattr *attr)
{
	return change(HOOK_SETATTR, d);
}

/* The same hook where it has the mount's id mapping before the dentry (6.9 and later). */
SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr_mapped, struct mnt_idmap *map, struct dentry *d, struct iattr *attr)
{
	return change(HOOK_SETATTR, d);
}

SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr, struct mnt_idmap *map, struct dentry *d, const char *name)
{
	return change(HOOK_SETXATTR, d);
}

SEC("lsm/inode_removexattr")
int BPF_PROG(inode_removexattr, struct mnt_idmap *map, struct dentry *d, const char *name)
{
	return change(HOOK_REMOVEXATTR, d);
}

/* 6.2 and later; before, these come as xattrs. */
SEC("lsm/inode_set_acl")
int BPF_PROG(inode_set_acl, struct mnt_idmap *map, struct dentry *d, const char *name)
{
	return change(HOOK_SETACL, d);
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(inode_remove_acl, struct mnt_idmap *map, struct dentry *d, const char *name)
{
	return change(HOOK_SETACL, d);
}

/* FAN_OPEN_PERM, FAN_ACCESS_PERM and FAN_OPEN_EXEC_PERM: whoever may answer for a protected file can hold the agent up. */
#define FAN_PERMISSION 0x70000
#define FSNOTIFY_OBJ_TYPE_INODE 0
SEC("lsm/path_notify")
int BPF_PROG(path_notify, const struct path *path, __u64 mask, unsigned int type)
{
	if (!(mask & FAN_PERMISSION) || type != FSNOTIFY_OBJ_TYPE_INODE)
		return 0;
	return displace(HOOK_NOTIFY, path->dentry);
}

#endif
