// Package policy holds the allow list's rules: it reads them strictly from TOML and the operator's settings, and decides
// what they say about one file and one asker. It opens no files and computes no digests; it asks Facts for them, and only
// when a rule needs them.
//
// Invariant: a Policy never changes after Parse, and a text with one fault yields no Policy at all.
package policy
