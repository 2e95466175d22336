// Package bundle packs the files of a release into one file and unpacks it again: a tar of manifest.json and the files in order of their
// paths, compressed with zstd. It trusts nothing that it unpacks, and it checks no signature: that a bundle is the one that was signed is
// known from its digest before it comes here.
//
// Invariant: the same files and the same description make the same bytes, whoever packs them, and what is unpacked is exactly what the manifest
// lists: regular files below one directory, of the sizes and digests named there.
package bundle
