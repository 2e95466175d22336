package main

import (
	"cmp"

	"bailey/test/vm/kernel"
)

// machine is one row of the matrix: a kernel, how it is booted, and the tests that run on it.
type machine struct {
	name   string
	always bool // `make test` runs it too; `make vm` runs all
	kernel kernel.Source
	lsm    string // the security modules in order, as on the kernel's command line
	tests  []selection
	skip   string // tests that fail there, each for a reason that docs/limitations.md has under Kernels
}

// selection is tests of some packages: those that match run, all if it is empty.
type selection struct{ packages, run string }

const (
	lsmDebian = "landlock,lockdown,yama,integrity,apparmor,bpf"
	lsmUbuntu = "landlock,lockdown,yama,integrity,apparmor" // BPF LSM programs attach there and never run
)

// matrix are the machines. The first runs all that runs in a machine at all, the others what another kernel could answer otherwise.
// The attacks on the guard take minutes, and have machines of their own.
var matrix = []machine{
	{name: "debian12", always: true, kernel: kernel.Debian12, lsm: lsmDebian, tests: []selection{
		{packages: "./agent/sensor/..."}, {packages: "./agent/product/..."}, {packages: "./internal/boottime"},
		{packages: "./test/e2e", run: whole}, {packages: "./agent", run: "^(TestGuardedAgent)$"},
		guardLife, ruled}},
	{name: "no-bpf-lsm", always: true, kernel: kernel.Debian12, lsm: lsmUbuntu, tests: []selection{
		{packages: "./agent/sensor/probe"}, {packages: "./agent/guard", run: "^(TestNotCalled)$"}, {packages: "./test/e2e", run: "^(TestWithoutBPFLSM)$"}}},
	{name: "debian13", kernel: kernel.Debian13, lsm: lsmDebian, tests: append(kernelFacing(), guardLife, ruled)},
	{name: "newest", kernel: kernel.Newest, lsm: lsmDebian, tests: append(kernelFacing(), guardLife, ruled), skip: preempted},
	{name: "attacks-6.1", kernel: kernel.Debian12, lsm: lsmDebian, tests: []selection{attacks}},
	{name: "attacks-6.12", kernel: kernel.Debian13, lsm: lsmDebian, tests: []selection{attacks}},
}

var (
	attacks   = selection{packages: "./agent/guard", run: "^(TestAttacks)$"}
	ruled     = selection{packages: "./agent/rules"}
	guardLife = selection{packages: "./agent/guard", run: "^Test(EveryProgramLoads|SilentHook|GuardOutlivesTheAgent|Leave|Unlock|Shutdown|Unfinished|OthersMay|Overlay|Flood)"}
)

// whole are the tests of the whole agent whose answer depends on the kernel.
const whole = "^(TestClockJumps|TestGuardAndToken|TestRulesHoldAlone)$"

// kernelFacing is what stands directly on the kernel: probes, sensors, containment, and some tests of the whole agent.
func kernelFacing() []selection {
	return []selection{
		{packages: "./agent/sensor/probe"}, {packages: "./agent/sensor/process"}, {packages: "./agent/sensor/file"}, {packages: "./agent/product/contain"},
		{packages: "./test/e2e", run: whole},
	}
}

// preempted are the tests under load that find events missing where the kernel preempts tracing programs.
const preempted = "^(TestNothingIsLostUnderLoad|TestNoGhostsFromAttaching|TestTreeIsRightUnderPidReuse|TestWantedAgainAndAgainUnderLoad)$"

// tooSlow are the tests of what outlives the agent. Each loads programs or starts products dozens of times, which takes minutes
// without hardware's help; they run natively. docs/limitations.md says so.
const tooSlow = "^(TestKilledSensors|TestOtherPrograms|TestDamagedPins|TestOverflowWhileNobodyReads|TestForeignReader|TestNextSensor|TestExecInBetween|" +
	"TestPlatformOutlives|TestPinsRemoved|TestWithoutABPFFS|TestFindBPFFS|TestAdopt_|TestOutlive_|TestLeave_|TestSuccessor_|TestKeeper_that|TestAgent_killed_leaves|TestAgent_and_keeper|TestAgent_killed_at_random)"

// skipped returns the expression of the tests that do not run on m.
func (m machine) skipped() string {
	if m.skip == "" {
		return tooSlow
	}
	return tooSlow + "|" + m.skip
}

// choose returns the tests of m that the command line asks for: other packages, another expression.
func (m machine) choose(packages []string, run string) []selection {
	tests := m.tests
	if len(packages) > 0 {
		tests = nil
		for _, p := range packages {
			tests = append(tests, selection{packages: p})
		}
	}
	var out []selection
	for _, s := range tests {
		out = append(out, selection{packages: s.packages, run: cmp.Or(run, s.run)})
	}
	return out
}
