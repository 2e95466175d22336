/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The few kernel types that all LSM programs read, with only the fields that they read. Offsets are relocated at load time against
 * the running kernel's BTF (CO-RE), so order and size here mean nothing; names do.
 */
#ifndef BAILEY_BPFLSM_KERNEL_H
#define BAILEY_BPFLSM_KERNEL_H

#include "../bpftypes/types.h"

enum { BPF_ANY = 0 };
enum { BPF_F_NO_PREALLOC = 1 };

#define EPERM 1
#define FMODE_WRITE 0x2
#define PTRACE_MODE_ATTACH 0x02 /* include/linux/ptrace.h */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct qstr {
	const unsigned char *name;
};
struct dentry;
struct super_block {
	__u32 s_dev;
	struct dentry *s_root;
	unsigned long s_magic;
};
struct inode {
	__u16 i_mode;
	unsigned int i_nlink;
	__u32 i_rdev;
	unsigned long i_ino;
	__u32 i_generation;
	struct super_block *i_sb;
};
struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};
struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct file {
	struct path f_path;
	struct inode *f_inode;
	__u32 f_mode;
};
struct linux_binprm {
	struct file *file;
};
struct mnt_idmap;

#pragma clang attribute pop

#endif
