package process

import (
	"strings"
	"testing"
)

func TestContainerID(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("0123456789abcdef", 4)
	other := strings.Repeat("fedcba9876543210", 4)
	for _, c := range []struct{ name, path, want string }{
		{"root", "/", ""},
		{"service", "/system.slice/ssh.service", ""},
		{"session", "/user.slice/user-1000.slice/session-3.scope", ""},
		{"docker_cgroupfs", "/docker/" + id, id},
		{"docker_systemd", "/system.slice/docker-" + id + ".scope", id},
		{"docker_rootless", "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + id + ".scope", id},
		{"docker_in_docker", "/docker/" + other + "/docker/" + id, id},
		{"docker_subgroup", "/docker/" + id + "/init.scope", id},
		{"containerd_ctr_hex", "/default/" + id, id},
		{"nerdctl_systemd", "/system.slice/nerdctl-" + id + ".scope", id},
		{"kubernetes_cgroupfs", "/kubepods/burstable/pod8d2b1f2e-6a7d-4c1f-9f39-0a1b2c3d4e5f/" + id, id},
		{"kubernetes_containerd", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod8d2b.slice/cri-containerd-" + id + ".scope", id},
		{"kubernetes_crio", "/kubepods.slice/kubepods-pod8d2b.slice/crio-" + id + ".scope/container", id},
		{"kubernetes_crio_monitor", "/kubepods.slice/kubepods-pod8d2b.slice/crio-conmon-" + id + ".scope", ""},
		{"containerd_colons", "/system.slice/containerd.service/kubepods-burstable-pod8d2b.slice:cri-containerd:" + id, id},
		{"podman_systemd", "/machine.slice/libpod-" + id + ".scope/container", id},
		{"podman_cgroupfs", "/libpod_parent/libpod-" + id, id},
		{"podman_monitor", "/machine.slice/libpod-conmon-" + id + ".scope", ""},
		{"lxc_payload", "/lxc.payload.web01/system.slice/ssh.service", "web01"},
		{"lxc_payload_folder", "/lxc.payload/web01", "web01"},
		{"lxc_old", "/lxc/web01/init.scope", "web01"},
		{"lxc_monitor", "/lxc.monitor.web01", ""},
		{"docker_in_lxc", "/lxc.payload.web01/docker/" + id, id},
		{"short_hex", "/process/" + id[:32], ""},
		{"upper_case", "/docker/" + strings.ToUpper(id), ""},
		{"too_long", "/docker/" + id + "0", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := containerID(c.path); got != c.want {
				t.Errorf("containerID(%q) = %q, want %q", c.path, got, c.want)
			}
		})
	}
}

func TestCgroupNamesPreferVersion2(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("ab", 32)
	var names cgroupNames
	for _, c := range []struct{ name, v2, v1, path, container string }{
		{"version_2", "ssh.service\x00system.slice\x00", "", "/system.slice/ssh.service", ""},
		{"version_1_only", "", id + "\x00docker\x00", "/docker/" + id, id},
		{"hybrid", "containerd.service\x00system.slice\x00", id + "\x00docker\x00", "/system.slice/containerd.service", id},
		{"root", "", "", "/", ""},
	} {
		for range 2 { // the second time it is remembered
			if got := names.of([]byte(c.v2), []byte(c.v1)); got.path != c.path || got.container != c.container {
				t.Errorf("%s: %+v", c.name, got)
			}
		}
	}
	for i := range 3 * knownCgroups {
		names.name([]byte{byte(i), byte(i >> 8), 1, 0})
	}
	if len(names.known) > knownCgroups+1 {
		t.Errorf("%d cgroups are remembered", len(names.known))
	}
}
