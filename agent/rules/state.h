/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What the rules are inside the kernel. kernel.go and compile.go have the same values. */
#ifndef BAILEY_RULES_STATE_H
#define BAILEY_RULES_STATE_H

enum action {
	ACTION_NONE,
	ACTION_EXEC,
	ACTION_OPEN_WRITE,
	ACTION_UNLINK_RENAME,
	ACTION_CONNECT,
	ACTION_MODULE_LOAD,
	ACTION_PTRACE,
	ACTION_MEMFD_EXEC,
	ACTION_MPROTECT_EXEC,
	ACTIONS,
};

/* By what a rule is found. */
enum {
	BY_PLACE = 1,       /* a file or directory */
	BY_EXECUTABLE = 2,  /* what the acting process executes */
	BY_CGROUP = 3,      /* a control group that the acting process is in or below */
	BY_DESTINATION = 4, /* a block of addresses */
	BY_ACTION = 5,      /* nothing: it holds for all */
};
#define HAS(by) (1u << (by))

/* Of a rule. */
enum {
	OWN = 1, /* holds for the file alone, not for what is below */
};

/* What a product's rules do. */
enum {
	MODE_OFF = 0,
	MODE_ENFORCE = 1,
	MODE_OBSERVE = 2, /* hits are told and nothing is refused: a product in shadow, or braked */
};

#define MAX_DEPTH 32    /* directories from a rule's directory down to a file */
#define MAX_LEVELS 16   /* control groups from the root down */
#define MAX_RULES 4096  /* of all products; slot 0 is none */
#define MAX_PRODUCTS 256
#define CELL 32         /* rules that are found by the same */
#define MAX_PREFIXES 32 /* different lengths of address blocks */

/* User mode has this mapped. */
struct settings {
	__u32 by[16]; /* per action: HAS(...) of what its rules are found by */
	__u32 learn_thread; /* the next file that this thread opens is described below */
	__u32 learned;
	__u64 learned_ino;
	__u32 learned_dev;
	__u32 learned_generation;
	__u32 prefixes[MAX_PREFIXES]; /* lengths of address blocks in use, +1; 0 after the last */
	__u64 sieve[SIEVE]; /* of the files and directories in places */
};
volatile struct settings control = {};

/* A generation makes an inode's number unique where numbers are used again. */
struct key {
	__u64 a; /* inode number, control group id, first half of an address */
	__u64 b; /* device and generation, second half of an address */
	__u32 kind;
	__u32 detail; /* of a destination the length of its block, of BY_ACTION the action */
};
struct cell {
	__u32 slots[CELL]; /* 0 after the last */
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_RULES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key);
	__type(value, struct cell);
} places SEC(".maps");

/* The filesystems that rules' files and directories lie in: all others are passed over at once. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

struct rule {
	__u64 until;  /* nanoseconds since boot */
	__u64 exe_ino; /* 0: whatever the process executes */
	__u64 exe_at; /* device and generation, as in a key */
	__u64 cgroup; /* 0: whatever control group it is in */
	__u32 level;  /* of the control group below the root */
	__u32 action; /* 0: the slot is free */
	__u32 flags;
	__u32 product;
	__u32 serial; /* of this rule since boot: slots are used again */
	__u16 port_low, port_high; /* 0: all */
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, __u64);
} hits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PRODUCTS);
	__type(key, __u32);
	__type(value, __u32);
} products SEC(".maps");

/* What user mode knows of a rule and no program reads: whose it is and how the product called it. */
struct note {
	__u32 length;
	char text[2044];
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_RULES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct note);
} notes SEC(".maps");

#endif
