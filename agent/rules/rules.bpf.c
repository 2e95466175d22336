//go:build ignore
/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Products' standing denies inside the kernel. Pinned, they go on when everything in user mode is dead, each until its lease ends.
 *
 * A program is attached only while a rule needs its hook, and looks first at what its rules are found by: a machine whose rules
 * name files never looks at control groups.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>

/* Of the names that the kernel accepts for its GPL-only helpers, the one that fits: GPL-2.0 is one of this file's two licences. */
char LICENSE[] SEC("license") = "GPL";

#include "../../internal/bpflsm/sieve.h"
#include "state.h"
#include "../../internal/bpflsm/recent.h"
#include "judge.h"

/* Attached only while a rule is installed: user mode does not know every filesystem's own numbers, so it opens the file. On overlay
 * a file is opened twice, the outer one first: that is what later hooks see. */
SEC("lsm/file_open")
int BPF_PROG(learn, struct file *file)
{
	struct inode *inode = file->f_inode;

	if (!control.learn_thread || control.learn_thread != (__u32)bpf_get_current_pid_tgid())
		return 0;
	control.learn_thread = 0;
	control.learned_ino = inode->i_ino;
	control.learned_dev = inode->i_sb->s_dev;
	control.learned_generation = inode->i_generation;
	control.learned++;
	return 0;
}

/* Comes for a script and then for its interpreter. A file in memory that has no name is memfd_create(2)'s, or was unlinked. */
SEC("lsm/bprm_check_security")
int BPF_PROG(exec, struct linux_binprm *bprm)
{
	struct dentry *d = bprm->file->f_path.dentry;
	struct inode *inode = bprm->file->f_inode;
	__u64 magic;
	int err;

	if (control.by[ACTION_EXEC]) {
		err = judge(ACTION_EXEC, d);
		if (err)
			return err;
	}
	if (!control.by[ACTION_MEMFD_EXEC] || inode->i_nlink)
		return 0;
	magic = inode->i_sb->s_magic;
	if (magic != TMPFS_MAGIC && magic != HUGETLBFS_MAGIC)
		return 0;
	return judge(ACTION_MEMFD_EXEC, d);
}

SEC("lsm/file_open")
int BPF_PROG(open_write, struct file *file)
{
	if (!(file->f_mode & FMODE_WRITE))
		return 0;
	return judge(ACTION_OPEN_WRITE, file->f_path.dentry);
}

/* A new file would be there, and empty, when its opening is refused. */
SEC("lsm/inode_create")
int BPF_PROG(create, struct inode *dir, struct dentry *d, unsigned short mode)
{
	return judge(ACTION_OPEN_WRITE, d);
}

/* A link elsewhere would be a way to write the file past a rule for its directory. */
SEC("lsm/inode_link")
int BPF_PROG(link, struct dentry *old, struct inode *dir, struct dentry *new)
{
	return judge(ACTION_OPEN_WRITE, old);
}

/* truncate(2), and O_TRUNC without writing. */
SEC("lsm/inode_setattr")
int BPF_PROG(truncate, struct dentry *d, struct iattr *attr)
{
	if (!(attr->ia_valid & ATTR_SIZE))
		return 0;
	return judge(ACTION_OPEN_WRITE, d);
}

/* The same hook where it has the mount's id mapping before the dentry (6.9 and later). */
SEC("lsm/inode_setattr")
int BPF_PROG(truncate_mapped, struct mnt_idmap *map, struct dentry *d, struct iattr *attr)
{
	if (!(attr->ia_valid & ATTR_SIZE))
		return 0;
	return judge(ACTION_OPEN_WRITE, d);
}

SEC("lsm/inode_unlink")
int BPF_PROG(unlink, struct inode *dir, struct dentry *d)
{
	return judge(ACTION_UNLINK_RENAME, d);
}

SEC("lsm/inode_rmdir")
int BPF_PROG(rmdir, struct inode *dir, struct dentry *d)
{
	return judge(ACTION_UNLINK_RENAME, d);
}

SEC("lsm/inode_rename")
int BPF_PROG(rename, struct inode *old_dir, struct dentry *old, struct inode *new_dir, struct dentry *new)
{
	int err = judge(ACTION_UNLINK_RENAME, old);

	return err ? err : judge(ACTION_UNLINK_RENAME, new);
}

/* reach decides about an address that something is sent to. IPv4 is looked for as IPv6 writes it, ::ffff:a.b.c.d, which reaches the
 * same destination. */
static __always_inline int reach(void *address, int length)
{
	struct deed deed = {.action = ACTION_CONNECT};
	__u32 by = control.by[ACTION_CONNECT], slot = 0, bits;
	struct address6 a = {};
	struct key key = {};
	__u32 word[4] = {};
	__u16 family = 0;
	int i;

	if (length < (int)sizeof(struct address4) || bpf_probe_read_kernel(&family, sizeof(family), address))
		return 0;
	if (family == AF_INET) {
		struct address4 a4 = {};

		if (bpf_probe_read_kernel(&a4, sizeof(a4), address))
			return 0;
		word[2] = bpf_htonl(0xffff);
		word[3] = a4.addr;
		deed.port = bpf_ntohs(a4.port);
	} else if (family == AF_INET6 && length >= (int)sizeof(a)) {
		if (bpf_probe_read_kernel(&a, sizeof(a), address))
			return 0;
		for (i = 0; i < 4; i++)
			word[i] = a.addr[i];
		deed.port = bpf_ntohs(a.port);
	} else {
		return 0;
	}
	deed.addr[0] = (__u64)bpf_ntohl(word[0]) << 32 | bpf_ntohl(word[1]);
	deed.addr[1] = (__u64)bpf_ntohl(word[2]) << 32 | bpf_ntohl(word[3]);
	key.kind = BY_DESTINATION;
	for (i = 0; by & HAS(BY_DESTINATION) && i < MAX_PREFIXES; i++) {
		bits = control.prefixes[i];
		if (!bits)
			break;
		bits = (bits - 1) & 0xff;
		key.detail = bits;
		key.a = deed.addr[0];
		key.b = deed.addr[1];
		if (bits < 64) {
			key.a = bits ? key.a >> (64 - bits) << (64 - bits) : 0;
			key.b = 0;
		} else if (bits < 128) {
			key.b = bits > 64 ? key.b >> (128 - bits) << (128 - bits) : 0;
		}
		slot = find(&key, &deed, 1);
		if (slot)
			break;
	}
	if (!slot && by & ~HAS(BY_DESTINATION))
		slot = find_subject(by, &deed);
	return outcome(slot, &deed, 0, 0);
}

SEC("lsm/socket_connect")
int BPF_PROG(connect, struct socket *sock, struct sockaddr *address, int length)
{
	return reach(address, length);
}

/* Datagrams to somebody, and TCP's fast open, never connect. */
SEC("lsm/socket_sendmsg")
int BPF_PROG(send, struct socket *sock, struct msghdr *msg, int size)
{
	if (!msg->msg_name)
		return 0;
	return reach(msg->msg_name, msg->msg_namelen);
}

SEC("lsm/kernel_read_file")
int BPF_PROG(read_module, struct file *file, enum kernel_read_file_id id)
{
	if (id != bpf_core_enum_value(enum kernel_read_file_id, READING_MODULE))
		return 0;
	if (!file || !BPF_CORE_READ(file, f_inode))
		return 0;
	return judge(ACTION_MODULE_LOAD, file->f_path.dentry);
}

/* init_module(2) has no file: only rules for whoever loads it, or for all, can hold. */
SEC("lsm/kernel_load_data")
int BPF_PROG(load_module, enum kernel_load_data_id id)
{
	struct deed deed = {.action = ACTION_MODULE_LOAD};

	if (id != bpf_core_enum_value(enum kernel_load_data_id, LOADING_MODULE))
		return 0;
	return outcome(find_subject(control.by[ACTION_MODULE_LOAD], &deed), &deed, 0, 0);
}

/* The file is what the other process executes. */
SEC("lsm/ptrace_access_check")
int BPF_PROG(ptrace, struct task_struct *child, unsigned int mode)
{
	struct deed deed = {.action = ACTION_PTRACE};
	__u32 by = control.by[ACTION_PTRACE], slot = 0;
	struct dentry *d;

	if (!(mode & PTRACE_MODE_ATTACH))
		return 0;
	d = child->mm->exe_file->f_path.dentry;
	if (d && by & HAS(BY_PLACE))
		slot = find_place(d, &deed);
	if (!slot && by & ~HAS(BY_PLACE))
		slot = find_subject(by, &deed);
	return outcome(slot, &deed, d, child);
}

/* The file may be none. Newer kernels want that to be asked; older ones believe that it never is and leave the question out, and there
 * only a read that can fail finds out. */
static __always_inline int map_exec(struct file *file)
{
	struct deed deed = {.action = ACTION_MPROTECT_EXEC};

	if (file && BPF_CORE_READ(file, f_inode))
		return judge(ACTION_MPROTECT_EXEC, file->f_path.dentry);
	return outcome(find_subject(control.by[ACTION_MPROTECT_EXEC], &deed), &deed, 0, 0);
}

SEC("lsm/mmap_file")
int BPF_PROG(map_file, struct file *file, unsigned long asked, unsigned long prot, unsigned long flags)
{
	if (!(prot & PROT_EXEC))
		return 0;
	return map_exec(file);
}

SEC("lsm/file_mprotect")
int BPF_PROG(protect, struct vm_area_struct *vma, unsigned long asked, unsigned long prot)
{
	if (!(prot & PROT_EXEC) || vma->vm_flags & VM_EXEC)
		return 0;
	return map_exec(vma->vm_file);
}
