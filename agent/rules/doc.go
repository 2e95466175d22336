// Package rules holds products' standing denies inside the kernel: BPF LSM programs (rules.bpf.c) that refuse what a rule names,
// with no round trip to anybody, until the rule's lease ends. It knows who may install which rule only by what it is told; it
// answers no question and decides nothing of its own.
//
// Everything that a rule is lies in pinned maps: it goes on when the product, the agent and the keeper are dead, and the next
// agent finds the rules there, with their ids, leases and hits. A program is attached only while a rule needs its hook.
//
// Rules hold for inodes, not for names: a file that takes the place of another one is not meant by the other's rule. A rule
// for a directory holds for all below it, whatever is created there.
//
// Invariant: no rule holds beyond its lease, whether or not anybody of the platform lives.
package rules
