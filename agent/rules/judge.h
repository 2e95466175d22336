/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Which rule, if any, refuses what the current process is about to do; and what user mode is told of it. */
#ifndef BAILEY_RULES_JUDGE_H
#define BAILEY_RULES_JUDGE_H

struct hit {
	__u64 time;
	__u64 start; /* of the process */
	__u64 target_start;
	__u64 ino;
	__u64 suppressed; /* like this one since the last that was sent */
	__u64 addr[2];    /* of the destination, as in IPv6 */
	__u32 slot, serial;
	__u32 pid, thread, uid;
	__u32 target; /* process id, 0 for none */
	__u32 dev;
	__u16 port;
	__u8 action;
	__u8 refused;
	char comm[16];
	char name[64]; /* of the file, without directories */
};
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} refusals SEC(".maps");

/* How many hits could not be told because nobody read them in time. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

/* What is about to happen. */
struct deed {
	__u64 addr[2];
	__u32 action;
	__u32 port;
	__u32 serial;  /* of the rule found */
	__u32 observe; /* and whether it only watches */
};

/* place_of is a file's key. Where the kernel knows several filesystems by one device number (btrfs), this is not what stat(2) says. */
static __always_inline void place_of(struct key *key, struct inode *inode, __u32 kind)
{
	key->a = inode->i_ino;
	key->b = (__u64)inode->i_sb->s_dev << 32 | inode->i_generation;
	key->kind = kind;
	key->detail = 0;
}

static __always_inline bool executes(const struct rule *rule)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct inode *inode = task->mm->exe_file->f_inode;

	return inode && inode->i_ino == rule->exe_ino && ((__u64)inode->i_sb->s_dev << 32 | inode->i_generation) == rule->exe_at;
}

/* holds says whether a rule that was found holds for what is done, and as what: MODE_OFF if not. */
static __always_inline __u32 holds(struct rule *rule, const struct deed *deed, bool own)
{
	__u32 product, *mode;

	if (rule->action != deed->action || (rule->flags & OWN && !own))
		return MODE_OFF;
	if (rule->port_high && (deed->port < rule->port_low || deed->port > rule->port_high))
		return MODE_OFF;
	if (bpf_ktime_get_boot_ns() >= rule->until)
		return MODE_OFF;
	product = rule->product;
	mode = bpf_map_lookup_elem(&products, &product);
	if (!mode || *mode == MODE_OFF)
		return MODE_OFF;
	if (rule->cgroup && bpf_get_current_ancestor_cgroup_id(rule->level) != rule->cgroup)
		return MODE_OFF;
	if (rule->exe_ino && !executes(rule))
		return MODE_OFF;
	return *mode;
}

/* find looks for a rule under one key. One that refuses goes before those that only watch. Not static, because the verifier then looks
 * at it once and not at every place in every loop that calls it: that is more than it is willing to follow. For the same reason it must
 * expect arguments that are not there. */
__noinline __u32 find(struct key *key, struct deed *deed, bool own)
{
	__u32 watching = 0, i;
	struct cell *cell;
	struct key own_key;

	if (!key || !deed)
		return 0;
	own_key = *key; /* a map is asked with what is on one's own stack (before 6.6) */
	cell = bpf_map_lookup_elem(&places, &own_key);
	if (!cell)
		return 0;
	for (i = 0; i < CELL; i++) {
		__u32 slot = cell->slots[i], mode;
		struct rule *rule;

		if (!slot)
			break;
		rule = bpf_map_lookup_elem(&rules, &slot);
		if (!rule)
			break;
		mode = holds(rule, deed, own);
		if (mode == MODE_OFF || (mode == MODE_OBSERVE && watching))
			continue;
		deed->serial = rule->serial;
		deed->observe = mode == MODE_OBSERVE;
		if (mode == MODE_ENFORCE)
			return slot;
		watching = slot;
	}
	return watching;
}

/* passes says whether a file's key may be in places; compile.go enters the same. */
static __always_inline bool passes(const struct key *key)
{
	return sieve_has(control.sieve, sieve_bit(key->a ^ key->b));
}

/* find_place looks for rules of a file and of all directories above it, whatever they are mounted on: it walks directories,
 * not mounts. */
static __noinline __u32 find_place(struct dentry *d, struct deed *deed)
{
	struct key key = {};
	__u32 dev = d->d_sb->s_dev, slot;
	int i;

	if (!bpf_map_lookup_elem(&devices, &dev))
		return 0;
	for (i = 0; i < MAX_DEPTH; i++) {
		struct inode *inode = d->d_inode;
		struct dentry *parent;

		if (inode) {
			place_of(&key, inode, BY_PLACE);
			if (passes(&key)) {
				slot = find(&key, deed, i == 0);
				if (slot)
					return slot;
			}
		}
		parent = d->d_parent;
		if (parent == d)
			return 0;
		d = parent;
	}
	return 0;
}

__noinline __u32 find_subject(__u32 by, struct deed *deed)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct key key = {};
	struct inode *inode;
	__u32 slot, i;

	if (!deed)
		return 0;
	if (by & HAS(BY_EXECUTABLE)) {
		inode = task->mm->exe_file->f_inode;
		if (inode) {
			place_of(&key, inode, BY_EXECUTABLE);
			slot = find(&key, deed, 1);
			if (slot)
				return slot;
		}
	}
	key.b = 0;
	key.detail = 0;
	if (by & HAS(BY_CGROUP)) {
		key.kind = BY_CGROUP;
		for (i = 1; i < MAX_LEVELS; i++) {
			key.a = bpf_get_current_ancestor_cgroup_id(i);
			if (!key.a)
				break;
			slot = find(&key, deed, 1);
			if (slot)
				return slot;
		}
	}
	if (by & HAS(BY_ACTION)) {
		key.a = 0;
		key.kind = BY_ACTION;
		key.detail = deed->action;
		return find(&key, deed, 1);
	}
	return 0;
}

/* tell counts a hit and sends it. */
static __noinline void tell(__u32 slot, const struct deed *deed, struct dentry *d, struct task_struct *target)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct recent_key key = {};
	__u64 now, suppressed = 0, *n;
	struct inode *inode;
	struct hit *h;
	__u32 zero = 0;

	n = bpf_map_lookup_elem(&hits, &slot);
	if (!n)
		return;
	__sync_fetch_and_add(n, 1);
	key.pid = task->tgid;
	key.what = slot;
	inode = d ? d->d_inode : 0;
	if (inode)
		key.ino = inode->i_ino;
	now = bpf_ktime_get_boot_ns();
	if (!is_due(&key, now, &suppressed))
		return;
	h = bpf_ringbuf_reserve(&refusals, sizeof(*h), 0);
	if (!h) {
		n = bpf_map_lookup_elem(&lost, &zero);
		if (n)
			__sync_fetch_and_add(n, 1 + suppressed);
		return;
	}
	h->time = now;
	h->start = task->group_leader->start_boottime;
	h->target_start = target ? target->group_leader->start_boottime : 0;
	h->ino = key.ino;
	h->suppressed = suppressed;
	h->addr[0] = deed->addr[0];
	h->addr[1] = deed->addr[1];
	h->slot = slot;
	h->serial = deed->serial;
	h->pid = task->tgid;
	h->thread = task->pid;
	h->uid = bpf_get_current_uid_gid();
	h->target = target ? target->tgid : 0;
	h->dev = d ? d->d_sb->s_dev : 0;
	h->port = deed->port;
	h->action = deed->action;
	h->refused = !deed->observe;
	bpf_get_current_comm(h->comm, sizeof(h->comm));
	if (!d || bpf_probe_read_kernel_str(h->name, sizeof(h->name), d->d_name.name) < 0)
		h->name[0] = 0;
	bpf_ringbuf_submit(h, 0);
}

/* spared says whether no rule may hold for the current process: the machine's first, and the kernel's own. */
static __always_inline bool spared(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return task->tgid == 1 || task->flags & PF_KTHREAD;
}

static __always_inline int outcome(__u32 slot, struct deed *deed, struct dentry *d, struct task_struct *target)
{
	if (!slot || spared())
		return 0;
	tell(slot, deed, d, target);
	return deed->observe ? 0 : -EPERM;
}

/* judge decides about something done to a file. */
static __always_inline int judge(__u32 action, struct dentry *d)
{
	struct deed deed = {.action = action};
	__u32 by = control.by[action], slot = 0;

	if (by & HAS(BY_PLACE))
		slot = find_place(d, &deed);
	if (!slot && by & ~HAS(BY_PLACE))
		slot = find_subject(by, &deed);
	return outcome(slot, &deed, d, 0);
}

#endif
