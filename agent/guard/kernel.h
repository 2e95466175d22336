/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The kernel types that only the guard reads, with only the fields that it reads. Offsets are relocated at load time against
 * the running kernel's BTF (CO-RE), so order and size here mean nothing; names do. A type with ___suffix is one kernel's
 * variant of the type before the suffix.
 */
#ifndef BAILEY_GUARD_KERNEL_H
#define BAILEY_GUARD_KERNEL_H

#include "../../internal/bpflsm/kernel.h"

#define SIGCONT 18
#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */
#define S_IFMT 0170000
#define S_IFBLK 0060000
#define S_IFCHR 0020000

/* include/uapi/linux/magic.h */
#define PROC_SUPER_MAGIC 0x9fa0
#define CGROUP_SUPER_MAGIC 0x27e0eb
#define CGROUP2_SUPER_MAGIC 0x63677270

/* include/linux/ptrace.h */
#define PTRACE_MODE_NOAUDIT 0x04

/* include/uapi/linux/mount.h */
#define MS_RDONLY 1
#define MS_NOEXEC 8
#define MS_REMOUNT 32
#define MS_MOVE 8192
#define MS_UNBINDABLE (1 << 17)
#define MS_PRIVATE (1 << 18)
#define MS_SLAVE (1 << 19)
#define MS_SHARED (1 << 20)

/* Requests of ioctl(2) that change a file or stop a filesystem through a descriptor that was opened for reading:
 * include/uapi/linux/fs.h, fs/ext4/ext4.h, include/uapi/linux/fsverity.h, include/scsi/sg.h, scsi_ioctl.h,
 * include/uapi/linux/nvme_ioctl.h, loop.h. */
#define FS_IOC_SETFLAGS 0x40086602
#define FS_IOC32_SETFLAGS 0x40046602
#define FS_IOC_SETVERSION 0x40087602
#define FS_IOC_FSSETXATTR 0x401c5820
#define FS_IOC_SET_ENCRYPTION_POLICY 0x800c6613
#define FS_IOC_ENABLE_VERITY 0x40806685
#define FS_IOC_SETFSLABEL 0x41009432
#define EXT4_IOC_SETFSUUID 0x4008662c
#define FIFREEZE 0xc0045877
#define FS_IOC_SHUTDOWN 0x8004587d /* ext4, xfs, f2fs */
#define SG_IO 0x2285
#define BLKROSET 0x125d
#define BLKRRPART 0x125f
#define BLKPG 0x1269
#define LOOP_CLR_FD 0x4c01
#define LOOP_SET_STATUS 0x4c02
#define LOOP_SET_STATUS64 0x4c04
#define LOOP_CHANGE_FD 0x4c06
#define LOOP_SET_CAPACITY 0x4c07
#define LOOP_SET_DIRECT_IO 0x4c08
#define LOOP_SET_BLOCK_SIZE 0x4c09
#define SG_SCSI_RESET 0x2284
#define SCSI_IOCTL_SEND_COMMAND 1
#define SCSI_IOCTL_START_UNIT 5
#define SCSI_IOCTL_STOP_UNIT 6
#define NVME_IOCTL_ADMIN_CMD 0xc0484e41
#define NVME_IOCTL_IO_CMD 0xc0484e43
#define NVME_IOCTL_SUBMIT_IO 0x40304e42

/* include/uapi/linux/bpf.h */
#define BPF_PROG_LOAD 5

/* Values differ between kernels; the loader puts in the running kernel's. */
enum lockdown_reason {
	LOCKDOWN_MODULE_SIGNATURE = 1,
	LOCKDOWN_DEV_MEM,
	LOCKDOWN_IOPORT,
	LOCKDOWN_MSR,
	LOCKDOWN_BPF_WRITE_USER,
};
enum kernel_load_data_id { LOADING_KEXEC_IMAGE = 3, LOADING_KEXEC_INITRAMFS };
enum kernel_read_file_id { READING_KEXEC_IMAGE = 3, READING_KEXEC_INITRAMFS };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__u32 val;
} kuid_t;

struct hlist_node {
	struct hlist_node *next;
};
struct hlist_head {
	struct hlist_node *first;
};
struct pid {
	struct hlist_head tasks[4];
};

struct ns_common {
	__u32 inum;
};
struct mnt_namespace {
	struct ns_common ns;
};
struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

struct mount {
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
	int mnt_group_id;
};
struct proc_inode {
	struct pid *pid;
	struct inode vfs_inode;
};

struct kernfs_node {
	const char *name;
	__u64 id;
	struct kernfs_node *__parent; /* 6.15 and later */
};
struct kernfs_node___before_6_15 {
	struct kernfs_node *parent;
};
struct cgroup_root {
	int hierarchy_id;
};
struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
};
struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct {
	unsigned int flags;
	unsigned int ptrace;
	int pid;
	int tgid;
	__u64 start_boottime;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct hlist_node pid_links[4];
	struct nsproxy *nsproxy;
	struct css_set *cgroups;
};
struct hw_perf_event {
	struct task_struct *target;
};
struct perf_event {
	struct hw_perf_event hw;
};

struct bpf_map {
	__u32 id;
};

struct kernel_siginfo;
struct cred;
struct iattr;
struct rlimit;
struct fown_struct;
union bpf_attr;

#pragma clang attribute pop

#endif
