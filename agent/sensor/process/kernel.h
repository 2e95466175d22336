/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The few kernel types that process.bpf.c reads, with only the fields that it reads. Offsets are relocated at load time
 * against the running kernel's BTF (CO-RE), so order and size here mean nothing; names do. A type with ___suffix is one
 * kernel's variant of the type before the suffix.
 */
#ifndef BAILEY_SENSOR_PROCESS_KERNEL_H
#define BAILEY_SENSOR_PROCESS_KERNEL_H

#include "../../../internal/bpftypes/types.h"

enum { BPF_F_MMAPABLE = 1 << 10 };
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2 };
enum pid_type { PIDTYPE_PID, PIDTYPE_TGID };
enum cgroup_subsys_id { memory_cgrp_id = 1, pids_cgrp_id = 2 };

#define PF_KTHREAD 0x00200000
#define PROC_PID_INIT_INO 0xEFFFFFFCu /* include/linux/proc_ns.h: the number of the first pid namespace */
#define SIGNAL_GROUP_EXIT 0x00000004
#define I_CTIME_QUERIED 0x80000000u /* 6.13: a mark inside i_ctime_nsec */
#define MAX_PID_NS_LEVEL 32

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct timespec64 {
	__s64 tv_sec;
	long tv_nsec;
};
typedef struct {
	__u32 val;
} kuid_t;
typedef struct {
	__u32 val;
} kgid_t;
typedef struct {
	int counter;
} atomic_t;

struct ns_common {
	__u32 inum;
};
struct pid_namespace {
	struct ns_common ns;
};
struct mnt_namespace {
	struct ns_common ns;
};
struct nsproxy {
	struct mnt_namespace *mnt_ns;
};
struct upid {
	int nr;
	struct pid_namespace *ns;
};
struct pid {
	__u32 level;
	struct upid numbers[1];
};

struct qstr {
	const unsigned char *name;
};
struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};
struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
};
struct vfsmount {
	struct dentry *mnt_root;
};
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
};
struct inode {
	__u16 i_mode;
	kuid_t i_uid;
	kgid_t i_gid;
	struct super_block *i_sb;
	unsigned long i_ino;
	__s64 i_size;
	__s64 i_mtime_sec; /* 6.11 and later */
	__s64 i_ctime_sec;
	__u32 i_mtime_nsec;
	__u32 i_ctime_nsec;
};
struct inode___before_6_6 {
	struct timespec64 i_mtime;
	struct timespec64 i_ctime;
};
struct inode___6_6 { /* 6.6: i_ctime renamed; 6.7: i_mtime too */
	struct timespec64 __i_mtime;
	struct timespec64 __i_ctime;
};
struct file {
	struct path f_path;
	struct inode *f_inode;
};
struct mm_struct {
	unsigned long arg_start, arg_end, env_start, env_end;
	struct file *exe_file;
};
struct fs_struct {
	struct path pwd;
};
typedef struct {
	__u64 val;
} kernel_cap_t; /* 8 bytes on every kernel: two 32-bit words before 6.3 */

struct cred {
	kuid_t uid, suid, euid, fsuid;
	kgid_t gid, sgid, egid, fsgid;
	kernel_cap_t cap_effective;
};

struct kernfs_node {
	const char *name;
	__u64 id;
	struct kernfs_node *__parent; /* 6.15 and later */
};
struct kernfs_node___before_6_15 {
	struct kernfs_node *parent;
};
struct cgroup {
	struct kernfs_node *kn;
};
struct cgroup_subsys_state {
	struct cgroup *cgroup;
};
struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp;
};

struct signal_struct {
	atomic_t live;
	struct pid *pids[4];
	int group_exit_code;
	unsigned int flags;
};
struct task_struct {
	unsigned int flags;
	int pid;
	int tgid;
	int exit_code;
	__u64 start_boottime;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	const struct cred *cred;
	char comm[16];
	struct fs_struct *fs;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct css_set *cgroups;
	struct mm_struct *mm;
};
struct linux_binprm {
	int argc;
	const char *filename;
	const char *interp;
};

struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
};
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

#endif
