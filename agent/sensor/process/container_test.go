package process_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bailey/agent/event"
	"bailey/agent/sensor/process"
	"bailey/internal/roottest"
)

// hierarchy returns where the cgroup hierarchy that the sensor shows is mounted: version 2 where it has processes, else
// version 1's memory controller.
func hierarchy(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var memory, unified string
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		switch {
		case fields[2] == "cgroup2":
			unified = fields[1]
		case fields[2] == "cgroup" && strings.Contains(","+fields[3]+",", ",memory,"):
			memory = fields[1]
		}
	}
	if memory != "" {
		return memory
	}
	if unified == "" {
		roottest.Unavailable(t, "no cgroup hierarchy is mounted")
	}
	return unified
}

func TestContainersAreNamed(t *testing.T) {
	roottest.Require(t, needs+" and makes a cgroup")
	id := strings.Repeat("0123abcd", 8)
	name := "bailey-test-docker-" + id + ".scope"
	dir := filepath.Join(hierarchy(t), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := start(t, process.Config{})
	t.Cleanup(func() {
		w.wait(t, "the cgroup to be empty", func() bool { return os.Remove(dir) == nil })
	})
	script := `echo $$ > ` + dir + `/cgroup.procs; /bin/sh -c 'exit 3'; exit 0`
	pid := run(t, exec.Command("/bin/sh", "-c", script))
	child := w.until(t, "fork inside", func(e *event.Event) bool { return e.Kind == event.Fork && e.Process.Key.PID == uint32(pid) }).Fork.Child
	exec := w.exec(t, int(child.Key.PID)).Process
	for what, p := range map[string]*event.Process{"forked": child, "executed": exec} {
		if p.Cgroup != "/"+name || p.ContainerID != id {
			t.Errorf("%s inside: cgroup %q, container %q", what, p.Cgroup, p.ContainerID)
		}
	}
}
