package boot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bailey/test/rig"
	"bailey/test/vm/initramfs"
	"bailey/test/vm/kernel"
	"bailey/test/vm/machine"
	"bailey/test/vm/qemu"
)

// unit starts the agent as simply as systemd can.
const unit = `[Unit]
Description=Bailey
[Service]
ExecStart=/usr/bin/bailey agent
Delegate=yes
KillMode=mixed
Restart=always
`

// Programs on the machine that do nothing; judge is a product that refuses all in one directory.
const (
	good   = "/srv/good"
	badDir = "/srv/bad"
	bad    = badDir + "/program"
)

// long reports whether there is time for what `make test` and `make vm` have none for: `make vm ALL=1` has.
func long() bool { return os.Getenv("BAILEY_VM_LONG") != "" }

// besideOthers has a test run beside the others where machines may.
func besideOthers(t *testing.T) {
	if qemu.AtOnce() > 1 {
		t.Parallel()
	}
}

// protected is a machine with an agent and a product that judges.
type protected struct {
	*machine.Machine
	t *testing.T
}

// judge refuses what is in one directory.
var judge = rig.Spec{Name: "judge", Questions: "exec", Settings: map[string]string{"deny_path": badDir}}

// start boots a machine whose agent systemd starts, and installs the judge.
func start(t *testing.T, k kernel.Source) protected {
	t.Helper()
	inject := injected(t, judge)
	withAgent(t, inject)
	p := startUnit(t, k, inject, unit)
	p.install(judge)
	return p
}

// startUnit boots a machine whose agent systemd starts by a unit of the test's own.
func startUnit(t *testing.T, k kernel.Source, inject, unit string) protected {
	t.Helper()
	return protected{machine.Start(t, machine.Options{Kernel: k, Inject: inject, Units: map[string]string{"bailey.service": unit}}), t}
}

// install waits for the agent and installs a product that lies ready.
func (p protected) install(product rig.Spec) {
	p.t.Helper()
	p.eventually("the agent serves", "bailey status")
	p.Must("bailey product install /opt/products/" + product.Name + " --yes")
}

// injected returns a directory with the programs and the product, to be laid over a machine's disk.
func injected(t *testing.T, product rig.Spec) string {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a machine")
	}
	inject, built := t.TempDir(), t.TempDir()
	if err := initramfs.Build(t.Context(), filepath.Join(built, "faulty"), rig.Programs()["faulty"]); err != nil {
		t.Fatal(err)
	}
	a := &rig.Agent{T: t, Built: built, Dir: filepath.Join(inject, "opt")}
	a.Folder(product)
	for _, program := range []string{good, bad} {
		write(t, filepath.Join(inject, program), string(rig.TinyProgram(program)), 0o755)
	}
	return inject
}

// withAgent builds the agent into such a directory, where a package would have it.
func withAgent(t *testing.T, inject string) {
	t.Helper()
	if err := initramfs.Build(t.Context(), filepath.Join(inject, "usr/bin/bailey"), rig.Programs()["bailey"]); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), mode)); err != nil {
		t.Fatal(err)
	}
}

// eventually repeats a command until it succeeds.
func (p protected) eventually(what, command string) {
	p.t.Helper()
	if _, code := p.Run("for i in $(seq 200); do { " + command + "; } >/dev/null 2>&1 && exit 0; sleep 0.2; done; exit 1"); code != 0 {
		out, _ := p.Run(command + "; bailey status; journalctl -u bailey -b --no-pager | tail -n 60")
		p.t.Fatalf("%s: not so\n%s", what, out)
	}
}

// protects waits until the product judges: the good program runs and the bad one is refused, and refused again. A product of an emulated machine may be
// late; then, and only then, the second look is repeated.
func (p protected) protects(when string) {
	p.t.Helper()
	p.eventually("it protects "+when, good+" && ! "+bad)
	for {
		before := p.late()
		out, code := p.Run(bad)
		if code == 126 && strings.Contains(out, "Operation not permitted") {
			return
		}
		if p.late() == before {
			p.t.Errorf("%s: %s = %q, %d; want EPERM", when, bad, out, code)
			return
		}
		p.t.Logf("%s: an answer was late: %s = %q, %d", when, bad, out, code)
	}
}

// late is how many questions were answered by default.
func (p protected) late() string {
	p.t.Helper()
	return p.Must(`bailey status --json | grep -o '"default":"*[0-9]*' || :`)
}
