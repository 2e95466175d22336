/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The few kernel types that are read, with only the fields that are: offsets are relocated at load time (CO-RE). */
#ifndef BAILEY_UNIT_KERNEL_H
#define BAILEY_UNIT_KERNEL_H

#include "../../internal/bpftypes/types.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
};

struct task_struct {
	__s32 pid, tgid;
	__u64 start_boottime;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	char comm[16];
};

struct linux_binprm;

#pragma clang attribute pop

#endif
