// Package decide answers exec questions (and open questions where they are asked for) by the allow list: it brings the
// policy, the package database and the digests together and reports what is or would be denied. It reads the file through
// the question's descriptor only.
//
// Invariant: every question is answered before its deadline, and never with a deny because something was not known, unless
// the policy says on_timeout = "deny".
package decide
