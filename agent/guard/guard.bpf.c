//go:build ignore
/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The guard inside the kernel: refuses what would end, blind or change the agent, the keeper and products, whoever asks, root
 * included. Pinned, it goes on when everything in user mode is dead. It tells of what it refused and sees nothing else.
 *
 * Each hook looks first at what is cheapest and most often says no: the operation, the lock, the filesystem, the place, and
 * last who asks. The hooks of every read and write (file_permission) are left alone.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

/* Of the names that the kernel accepts for its GPL-only helpers, the one that fits: GPL-2.0 is one of this file's two licences. */
char LICENSE[] SEC("license") = "GPL";

#include "../../internal/bpflsm/sieve.h"
#include "state.h"
#include "../../internal/bpflsm/recent.h"
#include "report.h"
#include "trust.h"
#include "process.h"
#include "file.h"
#include "mounts.h"
#include "machine.h"
