// Package packagedb answers which installed package a path belongs to and which digest the package manager recorded for
// it. It reads the databases of dpkg and rpm from their files, runs no program of theirs and takes none of their locks.
//
// It is not an integrity proof against root: the databases are as trustworthy as the file system that holds them. dpkg
// records md5, which tells an accident and a different build, but not a determined attacker who can craft two files with
// one digest before the package is built; rpm records sha256. A caller that decides by an md5 match should also require
// that the file belongs to root and that nobody else may write it (see RootOnly).
//
// Invariant: a Snapshot never changes. A reload builds a new one aside and swaps it in when it is complete; a reload that
// fails leaves the old one serving.
package packagedb
