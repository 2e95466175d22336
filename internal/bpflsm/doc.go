// Package bpflsm loads BPF LSM programs as the running kernel takes them, keeps them pinned beyond the process, tries whether the kernel
// calls them, and says what an operator can do where it does not. What the programs decide is their owners' business.
//
// kernel.h and recent.h are what such programs include: the kernel's types, and how reports of the same are cut.
//
// Invariant: a Blueprint's schema is the same only where the same programs do the same.
package bpflsm
