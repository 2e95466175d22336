// Package pathname answers what the path package does not: whether one path lies below another. It looks at names alone, never at a
// file system.
//
// Invariant: nothing is allocated, so that it may be asked where a question waits.
package pathname

import "strings"

// Below reports whether path is dir or lies below it. Both are clean and absolute; dir may end with a slash, and "" is "/":
// "/var/log" holds "/var/log/x" and not "/var/logs".
func Below(path, dir string) bool {
	if !strings.HasPrefix(path, dir) {
		return false
	}
	return len(path) == len(dir) || strings.HasSuffix(dir, "/") || path[len(dir)] == '/'
}
