package bpflsm

import "sync/atomic"

// Sieve is what sieve.h has of that name: a bit for each thing that may be in a map.
type Sieve [64]uint64

// SieveBit is the bit of a thing.
func SieveBit(thing uint64) uint64 { return thing * 0x9e3779b97f4a7c15 >> 52 }

// Add has a thing pass.
func (s *Sieve) Add(thing uint64) {
	bit := SieveBit(thing)
	s[bit/64] |= 1 << (bit % 64)
}

// Widen has the programs let pass what passes s too.
func (s *Sieve) Widen(shared *[64]uint64) {
	for i := range shared {
		atomic.OrUint64(&shared[i], s[i])
	}
}

// Narrow has the programs let pass what passes s alone.
func (s *Sieve) Narrow(shared *[64]uint64) {
	for i := range shared {
		atomic.StoreUint64(&shared[i], s[i])
	}
}
