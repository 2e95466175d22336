package event

import "math/bits"

// MaxProducts is how many products can be attached at once: a ProductSet is one machine word, so that merging answers is
// a handful of bit operations under a lock held for nanoseconds.
const MaxProducts = 64

// ProductSet is a set of product numbers (0 to MaxProducts-1); the zero value is empty.
type ProductSet uint64

// ProductBit returns the set that holds product i alone.
func ProductBit(i int) ProductSet { return 1 << i }

// Has reports whether product i is in the set.
func (s ProductSet) Has(i int) bool { return s&(1<<i) != 0 }

// Len returns the number of products in the set.
func (s ProductSet) Len() int { return bits.OnesCount64(uint64(s)) }

// First returns the lowest product number of a set that is not empty.
func (s ProductSet) First() int { return bits.TrailingZeros64(uint64(s)) }

// Voters are the products that are subscribed to one kind of question, and what the operator lets their answers do.
// Immutable: a change of products, subscriptions or grants makes a new one.
type Voters struct {
	Live            ProductSet // their answers count
	Shadow          ProductSet // their answers are recorded only; disjoint from Live
	MayDeny         ProductSet // hold the deny grant
	MayDenyCritical ProductSet // hold it for the critical set as well
	MissDenies      ProductSet // on_miss = deny
	Braked          ProductSet // hold the deny grant, but the brake took the right from them; disjoint from MayDeny
	Names           [MaxProducts]string

	// Owner is the maker's own: it finds the very products of this snapshot again, also after their numbers were reused.
	Owner any
}
