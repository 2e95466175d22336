package packaging_test

import (
	"debug/elf"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// files are those of both packages, with their modes; documentation and what belongs to one of them is not listed.
var files = []string{
	"drwxr-xr-x /etc/bailey/operators",
	"-rw-r--r-- /etc/bailey/agent.toml",
	"-rwxr-xr-x /usr/bin/bailey",
	"-rwxr-xr-x /usr/lib/bailey/products/allowlist/allowlist",
	"-rw-r--r-- /usr/lib/bailey/products/allowlist/manifest.toml",
	"-rw-r--r-- /usr/lib/bailey/products/allowlist/policy.toml",
	"-rwxr-xr-x /usr/lib/bailey/products/clamav/clamav",
	"-rw-r--r-- /usr/lib/bailey/products/clamav/manifest.toml",
	"-rw-r--r-- /usr/lib/systemd/system/bailey.service",
}

// listing matches a line of `dpkg-deb -c` and of `rpm -qlvp`.
var listing = regexp.MustCompile(`^([-dl][-rwxsStT]{9})\s+(.*?)\s*\broot[/ ]+root\s+(.*?)\s(\.?/\S*)$`)

// listed cuts a listing into "MODE /path" of files and of those directories that are empty in it.
func listed(t *testing.T, text string) []string {
	t.Helper()
	var out []string
	for l := range strings.Lines(text) {
		l = strings.TrimRight(l, "\n")
		m := listing.FindStringSubmatch(l)
		if m == nil {
			t.Errorf("not a line with owner root: %q", l)
			continue
		}
		path := strings.TrimPrefix(m[4], ".")
		if m[1][0] == 'd' && path != "/etc/bailey/operators" && path != "/etc/bailey/operators/" {
			if m[1] != "drwxr-xr-x" {
				t.Errorf("directory %s has mode %s", path, m[1])
			}
			continue
		}
		if strings.HasPrefix(path, "/usr/share/") {
			if m[1] != "-rw-r--r--" {
				t.Errorf("%s has mode %s", path, m[1])
			}
			continue
		}
		out = append(out, m[1]+" "+strings.TrimSuffix(path, "/"))
	}
	slices.Sort(out)
	return out
}

func same(t *testing.T, got []string) {
	t.Helper()
	want := slices.Sorted(slices.Values(files))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func (p packages) debFiles(t *testing.T) { same(t, listed(t, run(t, nil, "dpkg-deb", "-c", p.deb))) }

func (p packages) rpmFiles(t *testing.T) {
	same(t, listed(t, run(t, nil, "rpm", "-qlvp", "--nosignature", p.rpm)))
}

func (p packages) debFields(t *testing.T) {
	text := run(t, nil, "dpkg-deb", "-f", p.deb)
	for name, want := range map[string]string{
		"Package": "bailey", "Version": "1.0.0-1", "Architecture": "amd64", "Depends": "(no Depends)", "Pre-Depends": "(no Pre-Depends)",
		"Recommends": "systemd", "Conflicts": "(no Conflicts)", "Section": "admin",
	} {
		if got := field(text, name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := run(t, nil, "dpkg-deb", "-I", p.deb, "conffiles"); strings.TrimSpace(got) != "/etc/bailey/agent.toml" {
		t.Errorf("conffiles: %q", got)
	}
}

func (p packages) rpmFields(t *testing.T) {
	query := func(args ...string) []string {
		var out []string
		for l := range strings.Lines(run(t, nil, "rpm", append([]string{"-qp", "--nosignature"}, append(args, p.rpm)...)...)) {
			if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "rpmlib(") {
				out = append(out, l)
			}
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	for name, tc := range map[string]struct{ got, want []string }{
		"name":     {query("--qf", "%{NAME} %{VERSION}-%{RELEASE} %{ARCH} %{LICENSE}\n"), []string{"bailey 1.0.0-1 x86_64 Apache-2.0"}},
		"requires": {query("--requires"), []string{"/bin/sh"}},
		"weak":     {query("--recommends"), []string{"systemd"}},
		"config":   {query("--configfiles"), []string{"/etc/bailey/agent.toml"}},
	} {
		if diff := cmp.Diff(tc.want, tc.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// scripts are what sh can read, and both packages have all four.
func (p packages) scripts(t *testing.T) {
	dir := t.TempDir()
	run(t, nil, "dpkg-deb", "-e", p.deb, dir)
	for _, name := range []string{"preinst", "postinst", "prerm", "postrm"} {
		run(t, nil, "sh", "-n", filepath.Join(dir, name))
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	text := run(t, nil, "rpm", "-qp", "--nosignature", "--scripts", p.rpm)
	for _, name := range []string{"preinstall", "postinstall", "preuninstall", "postuninstall"} {
		if !strings.Contains(text, name+" scriptlet (using /bin/sh):") {
			t.Errorf("the rpm has no script %s:\n%s", name, text)
		}
	}
}

// program depends on no library: it must start when the machine's are being replaced.
func (p packages) program(t *testing.T) {
	dir := p.unpack(t)
	for _, name := range []string{"usr/bin/bailey", "usr/lib/bailey/products/allowlist/allowlist", "usr/lib/bailey/products/clamav/clamav"} {
		f, err := elf.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range f.Progs {
			if s.Type == elf.PT_INTERP || s.Type == elf.PT_DYNAMIC {
				t.Errorf("%s is linked dynamically", name)
			}
		}
		_ = f.Close()
	}
	if v := run(t, nil, filepath.Join(dir, "usr/bin/bailey"), "version"); !strings.Contains(v, "v1.0.0") {
		t.Errorf("version: %s", v)
	}
	run(t, nil, filepath.Join(dir, "usr/bin/bailey"), "agent", "--print-config", "--config", filepath.Join(dir, "etc/bailey/agent.toml"))
}

// unit is what systemd can read, and has what the service's promises rest on.
func (p packages) unit(t *testing.T) {
	dir := p.unpack(t)
	path := filepath.Join(dir, "usr/lib/systemd/system/bailey.service")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"DefaultDependencies=no", "After=local-fs.target", "Before=basic.target", "RefuseManualStop=yes", "StartLimitIntervalSec=0", "Type=notify",
		"NotifyAccess=main", "ExecStart=/usr/bin/bailey agent", "Restart=always", "TimeoutStartSec=30", "WatchdogSec=30", "OOMScoreAdjust=-1000",
		"OOMPolicy=continue", "PrivateMounts=yes", "MountFlags=slave", "Delegate=cpuset", "WantedBy=sysinit.target",
	} {
		if !strings.Contains("\n"+string(text), "\n"+want+"\n") {
			t.Errorf("the unit does not say %s", want)
		}
	}
	for _, bad := range []string{"Conflicts=", "Requires=", "network"} {
		for l := range strings.Lines(string(text)) {
			if !strings.HasPrefix(l, "#") && strings.Contains(l, bad) {
				t.Errorf("the unit says %s", l)
			}
		}
	}
	here := filepath.Join(t.TempDir(), "bailey.service")
	moved := strings.ReplaceAll(string(text), "/usr/bin/bailey", filepath.Join(dir, "usr/bin/bailey"))
	if err := os.WriteFile(here, []byte(moved), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := run(t, nil, "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", here); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
}
