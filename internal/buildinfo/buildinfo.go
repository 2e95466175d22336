// Package buildinfo says which build of Bailey a binary is, from what the Go linker recorded in it. It is not the version of
// a release, which the Makefile gives the linker by a flag, and it holds no state.
//
// Invariant: Read needs no flag at build time and always says something; what was not recorded is empty.
package buildinfo

import (
	"runtime"
	"runtime/debug"
)

// Info describes one build.
type Info struct {
	Version  string `json:"version"` // of the module: a tag, a pseudo-version, or "devel"
	Revision string `json:"revision"`
	Time     string `json:"time"`  // of the revision
	Dirty    bool   `json:"dirty"` // built from a tree with changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Release is Read with the version that a release was given; empty: what was recorded.
func Release(version string) Info {
	info := Read()
	if version != "" {
		info.Version = version
	}
	return info
}

// Read returns the running binary's build.
func Read() Info {
	info := Info{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	if v := build.Main.Version; v != "" && v != "(devel)" {
		info.Version = v
	}
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Revision = s.Value
		case "vcs.time":
			info.Time = s.Value
		case "vcs.modified":
			info.Dirty = s.Value == "true"
		}
	}
	return info
}
