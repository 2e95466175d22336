package event

import (
	"fmt"
	"math/bits"
	"strings"
)

// Kind names what happened or what is asked. The numbers equal those of bailey.product.v1.Kind; they never change.
type Kind uint8

// The kinds. Exec and Open exist as events and as questions; the kinds from Verdict on are made by the agent itself.
const (
	Exec       Kind = 1
	Fork       Kind = 2
	Exit       Kind = 3
	Open       Kind = 4
	Create     Kind = 5
	CloseWrite Kind = 6
	Rename     Kind = 7
	Unlink     Kind = 8
	Attrib     Kind = 9

	Verdict Kind = 32 // a question's outcome, with every product's answer
	Finding Kind = 33 // what a product detected
	Product Kind = 34 // a product changed its state
	Health  Kind = 35 // a part of the agent degraded or recovered
	Tamper  Kind = 36 // somebody tried something against the platform
)

var kindNames = map[Kind]string{
	Exec: "exec", Fork: "fork", Exit: "exit", Open: "open", Create: "create", CloseWrite: "close_write",
	Rename: "rename", Unlink: "unlink", Attrib: "attrib",
	Verdict: "verdict", Finding: "finding", Product: "product", Health: "health", Tamper: "tamper",
}

// Kinds lists every kind in numeric order.
func Kinds() []Kind {
	return []Kind{Exec, Fork, Exit, Open, Create, CloseWrite, Rename, Unlink, Attrib, Verdict, Finding, Product, Health, Tamper}
}

// String returns the kind's word, as used in manifests, on the command line and in JSON.
func (k Kind) String() string {
	if s, ok := kindNames[k]; ok {
		return s
	}
	return fmt.Sprintf("kind_%d", uint8(k))
}

// ParseKind is the inverse of Kind.String for known kinds.
func ParseKind(s string) (Kind, error) {
	for k, name := range kindNames {
		if name == s {
			return k, nil
		}
	}
	var all []string
	for _, k := range Kinds() {
		all = append(all, k.String())
	}
	return 0, fmt.Errorf("unknown event type %q; known: %s", s, strings.Join(all, ", "))
}

// KindSet is a set of kinds; the zero value is empty.
type KindSet uint64

// KindsOf returns the set of the given kinds.
func KindsOf(kinds ...Kind) KindSet {
	var s KindSet
	for _, k := range kinds {
		s |= 1 << k
	}
	return s
}

// Has reports whether k is in the set.
func (s KindSet) Has(k Kind) bool { return s&(1<<k) != 0 }

// Len returns the number of kinds in the set.
func (s KindSet) Len() int { return bits.OnesCount64(uint64(s)) }

// List returns the kinds of the set in numeric order.
func (s KindSet) List() []Kind {
	var out []Kind
	for k := Kind(0); k < 64; k++ {
		if s.Has(k) {
			out = append(out, k)
		}
	}
	return out
}
