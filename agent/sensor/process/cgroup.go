package process

import "strings"

// containerID returns the id of the innermost container that a cgroup path belongs to, empty if none. It knows the paths
// that Docker, containerd, CRI-O, Podman and LXC make, with the cgroupfs and the systemd driver:
//
//	/docker/ID  /system.slice/docker-ID.scope                                             Docker
//	/kubepods/burstable/podUID/ID  /kubepods.slice/…/cri-containerd-ID.scope  …/crio-ID    Kubernetes
//	/machine.slice/libpod-ID.scope/container  /libpod_parent/libpod-ID                     Podman
//	/lxc.payload.NAME/…  /lxc.payload/NAME  /lxc/NAME                                      LXC and LXD
//
// A monitor (conmon, lxc.monitor) is not inside the container.
func containerID(path string) string {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	for i := len(segments) - 1; i >= 0; i-- {
		segment := segments[i]
		if strings.HasPrefix(segment, "lxc.monitor") || strings.Contains(segment, "conmon-") {
			return ""
		}
		if id := hexID(segment); id != "" {
			return id
		}
		if name, ok := strings.CutPrefix(segment, "lxc.payload."); ok {
			return name
		}
		if i > 0 && (segments[i-1] == "lxc" || segments[i-1] == "lxc.payload") {
			return segment
		}
	}
	return ""
}

// hexID returns the 64 hex digits that are the segment or stand behind the runtime's name in it.
func hexID(segment string) string {
	const digits = 64
	segment = strings.TrimSuffix(segment, ".scope")
	if i := strings.LastIndexAny(segment, "-:"); i >= 0 { // ":" in containerd's own "slice:cri-containerd:ID"
		segment = segment[i+1:]
	}
	if len(segment) != digits || strings.Trim(segment, "0123456789abcdef") != "" {
		return ""
	}
	return segment
}

// cgroupNames turns a record's cgroup names into paths and remembers them: most processes share a few. Not safe for
// concurrent use.
type cgroupNames struct {
	known map[string]cgroupName
}

type cgroupName struct{ path, container string }

const knownCgroups = 4096

// of returns the path to show and the container id for the version 2 and version 1 names of a record.
func (c *cgroupNames) of(v2, v1 []byte) cgroupName {
	second, first := c.name(v2), c.name(v1)
	shown := second
	if second.path == "/" && first.path != "" {
		shown = first // no version 2 hierarchy in use
	}
	if shown.container == "" {
		shown.container = first.container
	}
	return shown
}

func (c *cgroupNames) name(names []byte) cgroupName {
	if name, ok := c.known[string(names)]; ok {
		return name
	}
	if len(c.known) >= knownCgroups || c.known == nil {
		c.known = map[string]cgroupName{"": {path: "/"}}
	}
	path := joinNames(names)
	name := cgroupName{path, containerID(path)}
	c.known[string(names)] = name
	return name
}
