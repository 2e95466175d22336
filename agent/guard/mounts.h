/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What is done to mounts: over protected places, of what they lie in, and away from under them. */
#ifndef BAILEY_GUARD_MOUNTS_H
#define BAILEY_GUARD_MOUNTS_H

static __always_inline struct mount *real(struct vfsmount *m)
{
	return (void *)m - bpf_core_field_offset(struct mount, mnt);
}

static __always_inline bool ours(struct vfsmount *m)
{
	__u32 ns = BPF_CORE_READ(real(m), mnt_ns, ns.inum);

	return ns == control.mount_ns || ns == control.manager_ns;
}

/* reaches says whether a change at this mount is seen by the agent, or by the machine: it is in its namespace, or it has peers. Containers and
 * services make their mounts private first, and may do with them as they like. */
static __always_inline bool reaches(struct vfsmount *m)
{
	return ours(m) || BPF_CORE_READ(real(m), mnt_group_id) != 0;
}

static __always_inline bool in_place(struct dentry *d)
{
	return flags_of(d->d_inode) & ANCESTOR || covered(d);
}

SEC("lsm/sb_mount")
int BPF_PROG(sb_mount, const char *dev, const struct path *path, const char *type, unsigned long flags, void *data)
{
	if (!active())
		return 0;
	/* Whom a mount tells of changes decides nothing here. */
	if (!(flags & (MS_REMOUNT | MS_MOVE)) && flags & (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE))
		return 0;
	if (flags & MS_REMOUNT && !(flags & (MS_RDONLY | MS_NOEXEC)))
		return 0;
	/* What is moved is said by its name only. Nothing moves mounts in a machine's own namespace once it is up. */
	if (flags & MS_MOVE && ours(path->mnt) && !(current_role() & TRUSTED))
		return refuse_file(HOOK_MOVE_MOUNT, path->dentry, flags);
	if (!in_place(path->dentry) || !reaches(path->mnt) || current_role() & TRUSTED)
		return 0;
	return refuse_file(HOOK_MOUNT, path->dentry, flags);
}

SEC("lsm/sb_remount")
int BPF_PROG(sb_remount, struct super_block *sb, void *options)
{
	__u32 dev = sb->s_dev;

	if (!active() || !bpf_map_lookup_elem(&devices, &dev) || by_manager() || current_role() & TRUSTED)
		return 0;
	return refuse(HOOK_REMOUNT, dev);
}

SEC("lsm/sb_umount")
int BPF_PROG(sb_umount, struct vfsmount *mnt, int flags)
{
	if (!active() || !in_place(mnt->mnt_root) || !reaches(mnt) || current_role() & TRUSTED)
		return 0;
	return refuse_file(HOOK_UMOUNT, mnt->mnt_root, flags);
}

SEC("lsm/move_mount")
int BPF_PROG(move_mount, const struct path *from, const struct path *to)
{
	if (!active())
		return 0;
	if (!(ours(from->mnt) && in_place(from->mnt->mnt_root)) && !(reaches(to->mnt) && in_place(to->dentry)))
		return 0;
	if (current_role() & TRUSTED)
		return 0;
	return refuse_file(HOOK_MOVE_MOUNT, to->dentry, 0);
}

SEC("lsm/sb_pivotroot")
int BPF_PROG(pivot_root, const struct path *old, const struct path *new)
{
	if (!active() || !ours(new->mnt) || current_role() & TRUSTED)
		return 0;
	return refuse_file(HOOK_PIVOT_ROOT, new->dentry, 0);
}

#endif
