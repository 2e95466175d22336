/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* How reports are cut: whoever tries in a loop must not keep the agent busy. */
#ifndef BAILEY_BPFLSM_RECENT_H
#define BAILEY_BPFLSM_RECENT_H

/* Of equal things by one process, one in this time is sent. */
#define PAUSE 100000000ull

struct recent_key {
	__u64 ino;
	__u32 pid;
	__u32 what;
	__u32 target; /* process id, 0 for none */
	__u32 reserved;
};
struct recent {
	__u64 time, suppressed;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct recent_key);
	__type(value, struct recent);
} recents SEC(".maps");

/* is_due says whether something is to be sent now; then suppressed is how many of its kind were not, since the last. */
static __always_inline bool is_due(const struct recent_key *key, __u64 now, __u64 *suppressed)
{
	struct recent fresh = {.time = now}, *last = bpf_map_lookup_elem(&recents, key);

	if (last && now - last->time < PAUSE) {
		__sync_fetch_and_add(&last->suppressed, 1);
		return 0;
	}
	*suppressed = last ? last->suppressed : 0;
	bpf_map_update_elem(&recents, key, &fresh, BPF_ANY);
	return 1;
}

#endif
