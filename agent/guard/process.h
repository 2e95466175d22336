/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What is done to processes. */
#ifndef BAILEY_GUARD_PROCESS_H
#define BAILEY_GUARD_PROCESS_H

/* disturb decides about something done to a process by another. */
static __always_inline int disturb(__u32 hook, struct task_struct *p, __u64 detail)
{
	__u32 role, tgid = p->tgid;
	__u64 start;

	if (!active())
		return 0;
	start = p->group_leader->start_boottime;
	role = role_by(tgid, start);
	if (!role || current_tgid() == tgid || may(role))
		return 0;
	return refuse_process(hook, tgid, start, detail);
}

/* The kernel's own signals (SIGPIPE, the memory killer) do not come here. Continuing a process does it no harm. */
SEC("lsm/task_kill")
int BPF_PROG(task_kill, struct task_struct *p, struct kernel_siginfo *info, int sig, const struct cred *cred)
{
	if (sig == 0 || sig == SIGCONT)
		return 0;
	return disturb(HOOK_TASK_KILL, p, sig);
}

/* fcntl(F_SETOWN) with F_SETSIG sends any signal, from wherever the descriptor becomes ready, past task_kill. The agent and
 * its products use it for nothing. */
SEC("lsm/file_send_sigiotask")
int BPF_PROG(sigio, struct task_struct *p, struct fown_struct *owner, int sig)
{
	__u64 start;

	if (!active())
		return 0;
	start = p->group_leader->start_boottime;
	if (!role_by(p->tgid, start))
		return 0;
	return refuse_process(HOOK_SIGIO, p->tgid, start, sig);
}

/* Reading is refused too, for /proc/PID/fd/N opens what the process has open, but it is no attempt: ps, journald and monitors
 * read whatever they find in /proc. The service manager can be read by everybody, but whoever writes into it starts services as
 * he likes. */
SEC("lsm/ptrace_access_check")
int BPF_PROG(ptrace_check, struct task_struct *p, unsigned int mode)
{
	__u32 role, tgid;
	__u64 start;

	if (!active())
		return 0;
	tgid = p->tgid;
	start = p->group_leader->start_boottime;
	role = role_by(tgid, start);
	if (!(mode & PTRACE_MODE_ATTACH)) {
		if (!(role & TRUSTED) || by_manager())
			return 0;
	} else if (!role) {
		if (tgid != control.manager)
			return 0;
		role = TRUSTED;
	}
	if (current_tgid() == tgid || may(role))
		return 0;
	if (mode & PTRACE_MODE_NOAUDIT)
		return answer();
	if (!(mode & PTRACE_MODE_ATTACH)) {
		count(HOOK_PTRACE);
		return answer();
	}
	return refuse_process(HOOK_PTRACE, tgid, start, mode);
}

/* A counter of a process can sample its memory, and with attr.sigtrap it signals it. Whoever has the capabilities for it is not
 * asked whether he may trace the process. Counters of processors, which see everybody, are left alone. */
SEC("lsm/perf_event_alloc")
int BPF_PROG(perf_alloc, struct perf_event *event)
{
	struct task_struct *target = event->hw.target;

	if (!target)
		return 0;
	return disturb(HOOK_PERF, target, 0);
}

SEC("lsm/task_setnice")
int BPF_PROG(setnice, struct task_struct *p, int nice)
{
	return disturb(HOOK_SETNICE, p, nice);
}

SEC("lsm/task_setscheduler")
int BPF_PROG(setscheduler, struct task_struct *p)
{
	return disturb(HOOK_SETSCHEDULER, p, 0);
}

SEC("lsm/task_setioprio")
int BPF_PROG(setioprio, struct task_struct *p, int ioprio)
{
	return disturb(HOOK_SETIOPRIO, p, ioprio);
}

SEC("lsm/task_setrlimit")
int BPF_PROG(setrlimit, struct task_struct *p, unsigned int resource, struct rlimit *limit)
{
	return disturb(HOOK_SETRLIMIT, p, resource);
}

SEC("lsm/task_movememory")
int BPF_PROG(movememory, struct task_struct *p)
{
	return disturb(HOOK_MOVEMEMORY, p, 0);
}

#endif
