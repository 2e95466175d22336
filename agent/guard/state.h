/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What the guard knows: who is trusted, what is protected, and whether it is locked. guard.go has the same values. */
#ifndef BAILEY_GUARD_STATE_H
#define BAILEY_GUARD_STATE_H

/* Of a process. */
enum {
	TRUSTED = 1,   /* may do everything: agent and keeper */
	PROTECTED = 2, /* nobody else may disturb it: those, and products */
	STARTED = 4,   /* the service manager made it; says nothing but that */
};

/* Of a file, a directory, a cgroup or a pin, by the inode. */
enum {
	TREE = 1,      /* it and all below it may be changed by trusted processes only */
	ANCESTOR = 2,  /* something protected lies below: it stays in its place */
	PROGRAM = 4,   /* whoever executes it can be trusted */
	SHUTDOWN = 8,  /* when the service manager executes it, the machine goes down */
	TEMPORARY = 16, /* a cgroup that a protected process was moved into: no ANCESTOR any more once it is back */
};

/* What the operator leaves to others. */
enum {
	ALLOW_TRACING = 1, /* loading BPF programs that can signal processes, or refuse what the guard allows */
	ALLOW_KEXEC = 2,
	OBSERVE = 4, /* report, and refuse nothing */
};

#define MAX_DEPTH 32    /* directories from a protected root down to a file */
#define MAX_CGROUP 8    /* cgroups from the root down to the service's */
#define UNIT_SPACE 64   /* one component of the service's cgroup, with its zero */
#define MAX_DISKS 16
#define MAX_GENERICS (2 * MAX_DISKS)

/* User mode has this mapped. Everything that is decided starts with a look at it. */
struct settings {
	__u32 locked;
	__u32 shutting_down;
	__u64 unlocked_until; /* nanoseconds since boot; 0: not unlocked */
	__u32 learn_thread;   /* the files that this thread opens are entered into roots, those of /proc/PID into processes */
	__u32 learn_flags;    /* with these flags; 0 removes them */
	__u32 manager;        /* process id of the service manager: 1 outside tests */
	__u32 policy;
	__u32 mount_ns;   /* inode number of the agent's mount namespace */
	__u32 manager_ns; /* and of the service manager's, which is the machine's: pins are there when the agent's is gone */
	__u32 cgroup_dev; /* device number of cgroup v2 */
	__u32 disks[MAX_DISKS]; /* block devices under protected files, 0 after the last */
	__u32 generics[MAX_GENERICS]; /* character devices that take commands for them (/dev/sg, /dev/bsg), 0 after the last */
	__u32 reserved;
	__u32 unit_depth;       /* components of the service's cgroup, 0: none may become trusted without a trusted parent */
	__u32 learned; /* how often something was entered */
	char unit[MAX_CGROUP][UNIT_SPACE]; /* innermost first */
};
volatile struct settings control = {};

struct process {
	__u64 start; /* nanoseconds since boot, of the process's first thread: process ids are used again */
	__u32 role;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct process);
} processes SEC(".maps");

struct place {
	__u64 ino;
	__u32 dev; /* s_dev: on btrfs and overlay not what stat(2) says */
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct place);
	__type(value, __u32);
} roots SEC(".maps");

/* Every directory above a file that somebody changes is looked for in roots, and is nearly never there. Bits are never taken back: the map
 * decides. */
volatile __u64 root_sieve[SIEVE] = {}, tree_sieve[SIEVE] = {}; /* all of them, and those with TREE */
volatile __u64 device_sieve = 0;                               /* of the filesystems that they lie in */

static __always_inline __u32 place_bit(__u64 ino, __u32 dev)
{
	return sieve_bit(ino ^ (__u64)dev << 32);
}

/* sift has a root pass from now on, before it is entered: what does not pass is not looked for. */
static __always_inline void sift(__u64 ino, __u32 dev, __u32 flags)
{
	__u32 bit = place_bit(ino, dev);

	sieve_add(root_sieve, bit);
	if (flags & TREE)
		sieve_add(tree_sieve, bit);
	__sync_fetch_and_or(&device_sieve, 1ull << (dev & 63));
}

/* The filesystems that roots lie in. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

/* Ids of the agent's BPF maps. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} objects SEC(".maps");

static __always_inline bool active(void)
{
	__u64 until;

	if (!control.locked || control.shutting_down)
		return 0;
	until = control.unlocked_until;
	return !until || bpf_ktime_get_boot_ns() >= until;
}

static __always_inline __u32 role_by(__u32 tgid, __u64 start)
{
	struct process *p = bpf_map_lookup_elem(&processes, &tgid);

	return p && p->start == start ? p->role & (TRUSTED | PROTECTED) : 0;
}

static __always_inline __u32 role_of(struct task_struct *task)
{
	return role_by(task->tgid, task->group_leader->start_boottime);
}

static __always_inline __u32 current_role(void)
{
	return role_of(bpf_get_current_task_btf());
}

static __always_inline __u32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline bool by_manager(void)
{
	return current_tgid() == control.manager;
}

/* may says whether the current process may disturb one with this role. A product may disturb products: their containment
 * decides which of them it sees. */
static __always_inline bool may(__u32 role)
{
	__u32 own = current_role();

	return own & TRUSTED || (own & PROTECTED && !(role & TRUSTED));
}

/* may_change says whether the current process may change protected files. Products write where their containment lets them,
 * but one that became root has broken out of it. */
static __always_inline bool may_change(void)
{
	__u32 own = current_role();

	return own & TRUSTED || (own & PROTECTED && (__u32)bpf_get_current_uid_gid() != 0);
}

/* flags_of returns what one inode is. */
static __always_inline __u32 flags_of(struct inode *inode)
{
	struct place at = {};
	__u32 *flags;

	if (!inode)
		return 0;
	at.ino = inode->i_ino;
	at.dev = inode->i_sb->s_dev;
	if (!sieve_has(root_sieve, place_bit(at.ino, at.dev)))
		return 0;
	flags = bpf_map_lookup_elem(&roots, &at);
	return flags ? *flags : 0;
}

/* detached says whether the kernel does not know where in its filesystem a file lies: open_by_handle_at(2) finds files by their
 * numbers, and none of the directories above. The kernel's own threads, which serve files over the network, do so all the time. */
static __always_inline bool detached(struct dentry *d)
{
	return d != d->d_sb->s_root && !(bpf_get_current_task_btf()->flags & PF_KTHREAD);
}

/* covered returns the flags of the protected root that a file is or lies below, whatever it is mounted on; 0 if there is none.
 * It walks directories, not mounts: those would have to be walked in every namespace. A file of which nobody knows where it lies
 * counts as lying there. */
static __noinline __u32 covered(struct dentry *d)
{
	struct place at = {};
	struct dentry *parent;
	__u32 *flags;
	int i;

	at.dev = d->d_sb->s_dev;
	if (!(device_sieve >> (at.dev & 63) & 1))
		return 0;
	for (i = 0; i < MAX_DEPTH; i++) {
		struct inode *inode = d->d_inode;

		if (inode && sieve_has(tree_sieve, place_bit(inode->i_ino, at.dev))) {
			at.ino = inode->i_ino;
			flags = bpf_map_lookup_elem(&roots, &at);
			if (flags && *flags & TREE)
				return *flags;
		}
		parent = d->d_parent;
		if (parent == d)
			return detached(d) ? TREE : 0;
		d = parent;
	}
	return 0;
}

/* named says whether a dentry has this very name, a literal of at most 23 bytes. Unrolled, the literal is in the code: the object
 * needs no map of constants. */
#define named(dentry, text)                                                                     \
	({                                                                                      \
		char name_[24] = {};                                                            \
		bool same_ = 1;                                                                 \
		bpf_probe_read_kernel_str(name_, sizeof(name_), (dentry)->d_name.name);         \
		_Pragma("clang loop unroll(full)") for (int i_ = 0; i_ < (int)sizeof(text); i_++) \
			same_ &= name_[i_] == (text)[i_];                                       \
		same_;                                                                          \
	})

#endif
