/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The words that libbpf's headers take for granted, and the kinds of map in use (include/uapi/linux/bpf.h): what every BPF object here begins
 * with in place of a vmlinux.h of 100,000 lines. */
#ifndef BAILEY_BPFTYPES_H
#define BAILEY_BPFTYPES_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed int __s32;
typedef signed long long __s64;
typedef _Bool bool;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};

#endif
