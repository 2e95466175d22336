package pathname

import "testing"

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		path, dir string
		want      bool
	}{
		{"/var/log", "/var/log", true}, {"/var/log/x", "/var/log", true}, {"/var/logs", "/var/log", false}, {"/var", "/var/log", false},
		{"/var/log/x", "/var/log/", true}, {"/var/log", "/var/log/", false}, {"/x", "/", true}, {"/", "/", true}, {"/x", "", true}, {"", "", true}, {"", "/", false},
	} {
		if got := Below(c.path, c.dir); got != c.want {
			t.Errorf("Below(%q, %q) = %t", c.path, c.dir, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _ = Below("/var/log/x", "/var/log") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
