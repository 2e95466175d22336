//go:build ignore
/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Tells which programs that speak to systemd are executed, with their arguments. */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

/* Of the names that the kernel accepts for its GPL-only helpers, the one that fits: GPL-2.0 is one of this file's two licences. */
char LICENSE[] SEC("license") = "GPL";

#define ARGS 512 /* a power of two */

struct asked {
	__u64 start; /* of the process, nanoseconds since boot */
	__u32 pid, uid;
	__u32 size; /* of args; more than ARGS: they were cut */
	char comm[16];
	char args[ARGS];
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} asked_ring SEC(".maps");

/* The first bytes of a name as they are compared: "systemctl" and the like differ from others there. */
static __always_inline __u64 eight(const char *s)
{
	__u64 v = 0;

	__builtin_memcpy(&v, s, 8);
	return v;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task, __s32 old, struct linux_binprm *bprm)
{
	unsigned long from, to;
	struct asked *a;
	__u64 name = 0;
	__u32 size;

	bpf_probe_read_kernel(&name, sizeof(name), &task->comm);
	if (name != eight("systemct") && name != eight("busctl\0\0") && name != eight("dbus-sen") && name != eight("gdbus\0\0\0"))
		return 0;
	a = bpf_ringbuf_reserve(&asked_ring, sizeof(*a), 0);
	if (!a)
		return 0;
	from = BPF_CORE_READ(task, mm, arg_start);
	to = BPF_CORE_READ(task, mm, arg_end);
	a->start = BPF_CORE_READ(task, group_leader, start_boottime);
	a->pid = task->tgid;
	a->uid = bpf_get_current_uid_gid();
	a->size = to - from;
	a->reserved = 0;
	bpf_get_current_comm(a->comm, sizeof(a->comm));
	size = to - from < ARGS ? to - from : ARGS;
	if (size > ARGS || bpf_probe_read_user(a->args, size, (void *)from) < 0)
		a->size = 0;
	bpf_ringbuf_submit(a, 0);
	return 0;
}
