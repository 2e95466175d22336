/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What is done through the kernel itself: BPF, kernel memory, unsigned modules, another kernel. */
#ifndef BAILEY_GUARD_MACHINE_H
#define BAILEY_GUARD_MACHINE_H

/* Of BPF programs, these types can signal any process, change what system calls return, judge like this one, or hold
 * processors back: kprobe, tracepoint, perf_event, raw_tracepoint, raw_tracepoint_writable, tracing, struct_ops, ext, lsm. */
#define JUDGES (1u << 2 | 1u << 5 | 1u << 7 | 1u << 17 | 1u << 24 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 29)

SEC("lsm/bpf")
int BPF_PROG(bpf_call, int cmd, union bpf_attr *attr, unsigned int size)
{
	__u32 type = 0;

	if (cmd != BPF_PROG_LOAD || control.policy & ALLOW_TRACING || !active())
		return 0;
	bpf_probe_read_kernel(&type, sizeof(type), attr); /* prog_type is the first of BPF_PROG_LOAD's */
	if (type > 31 || !(1u << type & JUDGES) || by_manager() || current_role() & TRUSTED)
		return 0;
	return refuse(HOOK_BPF, type);
}

/* Reading is open to everybody: tools that list all maps and programs stop at the first one they may not see. */
SEC("lsm/bpf_map")
int BPF_PROG(bpf_map_open, struct bpf_map *map, unsigned int mode)
{
	__u32 id = map->id;

	if (!(mode & FMODE_WRITE) || !active() || !bpf_map_lookup_elem(&objects, &id) || current_role() & TRUSTED)
		return 0;
	return refuse(HOOK_BPF_MAP, id);
}

SEC("lsm/locked_down")
int BPF_PROG(locked_down, enum lockdown_reason what)
{
	if (what != bpf_core_enum_value(enum lockdown_reason, LOCKDOWN_MODULE_SIGNATURE) &&
	    what != bpf_core_enum_value(enum lockdown_reason, LOCKDOWN_DEV_MEM) &&
	    what != bpf_core_enum_value(enum lockdown_reason, LOCKDOWN_IOPORT) &&
	    what != bpf_core_enum_value(enum lockdown_reason, LOCKDOWN_MSR) &&
	    what != bpf_core_enum_value(enum lockdown_reason, LOCKDOWN_BPF_WRITE_USER))
		return 0;
	if (!active() || current_role() & TRUSTED)
		return 0;
	return refuse(HOOK_LOCKED_DOWN, what);
}

static __always_inline int kexec(void)
{
	if (control.policy & ALLOW_KEXEC || !active() || current_role() & TRUSTED)
		return 0;
	return refuse(HOOK_KEXEC, 0);
}

SEC("lsm/kernel_load_data")
int BPF_PROG(load_data, enum kernel_load_data_id id, bool contents)
{
	if (id != bpf_core_enum_value(enum kernel_load_data_id, LOADING_KEXEC_IMAGE) &&
	    id != bpf_core_enum_value(enum kernel_load_data_id, LOADING_KEXEC_INITRAMFS))
		return 0;
	return kexec();
}

SEC("lsm/kernel_read_file")
int BPF_PROG(read_file, struct file *file, enum kernel_read_file_id id, bool contents)
{
	if (id != bpf_core_enum_value(enum kernel_read_file_id, READING_KEXEC_IMAGE) &&
	    id != bpf_core_enum_value(enum kernel_read_file_id, READING_KEXEC_INITRAMFS))
		return 0;
	return kexec();
}

#endif
