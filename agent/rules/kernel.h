/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The kernel types that only the rules read, with only the fields that they read. Offsets are relocated at load time against
 * the running kernel's BTF (CO-RE), so order and size here mean nothing; names do.
 */
#ifndef BAILEY_RULES_KERNEL_H
#define BAILEY_RULES_KERNEL_H

#include "../../internal/bpflsm/kernel.h"

#define ATTR_SIZE (1 << 3) /* include/linux/fs.h */
#define PF_KTHREAD 0x00200000
#define VM_EXEC 0x4
#define PROT_EXEC 0x4
#define AF_INET 2
#define AF_INET6 10

/* include/uapi/linux/magic.h */
#define TMPFS_MAGIC 0x01021994
#define HUGETLBFS_MAGIC 0x958458f6

/* Values differ between kernels; the loader puts in the running kernel's. */
enum kernel_load_data_id { LOADING_MODULE = 2 };
enum kernel_read_file_id { READING_MODULE = 2 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct mm_struct {
	struct file *exe_file;
};
struct vm_area_struct {
	unsigned long vm_flags;
	struct file *vm_file;
};
struct task_struct {
	unsigned int flags;
	int pid;
	int tgid;
	__u64 start_boottime;
	struct task_struct *group_leader;
	struct mm_struct *mm;
};
struct iattr {
	unsigned int ia_valid;
};
struct msghdr {
	void *msg_name;
	int msg_namelen;
};
struct sockaddr {
	__u16 sa_family;
};
struct socket;

#pragma clang attribute pop

/* include/uapi/linux/in.h, in6.h: laid down by the ABI. */
struct address4 {
	__u16 family;
	__be16 port;
	__be32 addr;
};
struct address6 {
	__u16 family;
	__be16 port;
	__be32 flow;
	__u32 addr[4];
};

#endif
