// Package guard protects the agent, the keeper, products and what belongs to them against everybody else on the machine, root
// included: BPF LSM programs (guard.bpf.c) that refuse signals, ptrace, writes below protected directories, mounts over them,
// changes of their control groups, pins and BPF maps, writes to the disk below, and what would turn such programs off. It decides
// nothing about products and answers no question; what it refuses it reports as an Attempt.
//
// The programs are pinned: they go on when every process of the platform is dead, and the next agent that Start is called in
// takes them over. Trusted are the processes that Start is told of and what they start from a trusted program, and a trusted
// program that the service manager starts in the service's own control group. Nobody becomes trusted by executing the program.
//
// What a kernel module, or a boot without it, can do is out of its reach.
//
// Invariant: between Lock and Close there is no moment in which the programs are not in force, unless Unlock said so.
package guard
