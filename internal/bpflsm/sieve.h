/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* A bit for each thing that may be in a map, by a hash of it: what has none is not looked for, which costs a tenth of a look into the map. */
#ifndef BAILEY_BPFLSM_SIEVE_H
#define BAILEY_BPFLSM_SIEVE_H

#define SIEVE 64 /* words */

/* SieveBit in sieve.go is the same. */
static __always_inline __u32 sieve_bit(__u64 thing)
{
	return (thing * 0x9e3779b97f4a7c15ull) >> 52;
}

static __always_inline bool sieve_has(volatile __u64 *sieve, __u32 bit)
{
	return sieve[bit >> 6] >> (bit & 63) & 1;
}

static __always_inline void sieve_add(volatile __u64 *sieve, __u32 bit)
{
	__sync_fetch_and_or(&sieve[bit >> 6], 1ull << (bit & 63));
}

#endif
