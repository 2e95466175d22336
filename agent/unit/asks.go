package unit

import (
	"path"
	"slices"
	"strings"
)

// What ends, hinders or changes a unit: verbs of systemctl, methods of systemd's manager that are given its name, and methods of
// the unit's own object.
var (
	verbs = []string{"stop", "restart", "try-restart", "condrestart", "reload-or-restart", "try-reload-or-restart", "reload-or-try-restart",
		"force-reload", "kill", "freeze", "mask", "disable", "reenable", "preset", "revert", "edit", "set-property", "clean", "bind", "mount-image"}
	managerMethods = []string{"StopUnit", "RestartUnit", "TryRestartUnit", "ReloadOrRestartUnit", "ReloadOrTryRestartUnit", "EnqueueUnitJob",
		"KillUnit", "FreezeUnit", "MaskUnitFiles", "DisableUnitFiles", "DisableUnitFilesWithFlags", "ReenableUnitFiles", "RevertUnitFiles",
		"SetUnitProperties", "CleanUnit", "BindMountUnit", "MountImageUnit"}
	unitMethods = []string{"Stop", "Restart", "TryRestart", "ReloadOrRestart", "ReloadOrTryRestart", "EnqueueJob", "Kill", "Freeze",
		"SetProperties", "Clean"}
)

// Asks returns what a command asks the service manager to do to the unit name that would end, hinder or change it, "" if nothing.
func Asks(args []string, name string) string {
	object := slices.ContainsFunc(args, func(a string) bool { return strings.HasSuffix(a, "/unit/"+escaped(name)) })
	for i, a := range args {
		method := a[strings.LastIndexByte(a, '.')+1:]
		switch {
		case i == 0:
		case object && slices.Contains(unitMethods, method):
			return method
		case !slices.Contains(verbs, a) && !slices.Contains(managerMethods, method):
		case slices.ContainsFunc(args[i+1:], func(a string) bool { return names(a, name) }):
			return method
		}
	}
	return ""
}

// names reports whether an argument is the unit's name, as systemctl completes and expands it, or as dbus-send writes it.
func names(arg, name string) bool {
	arg = strings.TrimPrefix(arg, "string:")
	for _, pattern := range []string{arg, arg + ".service"} {
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	return path.Base(arg) == name
}

// escaped is a unit's name in the path of its object on the bus.
func escaped(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' {
			b.WriteByte(c)
			continue
		}
		const hex = "0123456789abcdef"
		b.WriteByte('_')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}
