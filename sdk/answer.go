package sdk

import productv1 "bailey/api/product/v1"

// Answer is what a product says to a question. The zero value is Allow.
type Answer struct {
	flags uint16
}

// The answers.
var (
	Allow = Answer{}
	Deny  = Answer{flags: productv1.FlagDeny}
)

// CacheFile says that the answer depends on the file's content alone, not on who asks. If all products say so of an
// allow, the kernel does not ask again until the file changes.
func (a Answer) CacheFile() Answer { return Answer{flags: a.flags | productv1.FlagCacheFile} }

// Denied reports whether the answer is a deny.
func (a Answer) Denied() bool { return a.flags&productv1.FlagDeny != 0 }

// Cached reports whether CacheFile was said.
func (a Answer) Cached() bool { return a.flags&productv1.FlagCacheFile != 0 }

// String returns "allow" or "deny", with "+cache_file" when that was said.
func (a Answer) String() string {
	s := "allow"
	if a.Denied() {
		s = "deny"
	}
	if a.Cached() {
		s += "+cache_file"
	}
	return s
}
