package main

import (
	"cmp"

	"bailey/test/vm/kernel"
)

// machine is one row of the matrix: a kernel, how it is booted, and the tests that run on it.
type machine struct {
	name   string
	always bool // `make test` runs it too, not `make vm` alone
	more   bool // only `make vm ALL=1` runs it
	kernel kernel.Source
	lsm    string // the security modules in order, as on the kernel's command line
	one    bool   // tcg emulates its processors on one thread, as with several machines at once all do: see qemu.Config.OneThread
	tests  []selection
	skip   string // tests that fail there, each for a reason that docs/limitations.md has under Kernels
}

// selection is tests of some packages: those that match run, all if it is empty.
type selection struct{ packages, run string }

const (
	lsmDebian = "landlock,lockdown,yama,integrity,apparmor,bpf"
	lsmUbuntu = "landlock,lockdown,yama,integrity,apparmor" // BPF LSM programs attach there and never run
)

// matrix are the machines, what takes longest first. debian12 runs all that runs in a machine at all, the others what another kernel could answer otherwise.
// Guard and rules have machines of their own, and so have the attacks on the guard: each takes minutes, and machines run beside one another.
var matrix = []machine{
	{name: "attacks-6.12", kernel: kernel.Debian13, lsm: lsmDebian, one: true, tests: []selection{attacks}},
	{name: "attacks-6.1", kernel: kernel.Debian12, lsm: lsmDebian, tests: []selection{attacks}},
	{name: "debian12", always: true, kernel: kernel.Debian12, lsm: lsmDebian, tests: []selection{
		{packages: "./agent/sensor/..."}, {packages: "./agent/product/..."}, {packages: "./internal/boottime"}}},
	{name: "debian12-guard", always: true, kernel: kernel.Debian12, lsm: lsmDebian, tests: guarded()},
	{name: "no-bpf-lsm", always: true, kernel: kernel.Debian12, lsm: lsmUbuntu, tests: []selection{
		{packages: "./agent/sensor/probe"}, {packages: "./agent/guard", run: "^(TestNotCalled)$"}, {packages: "./test/e2e", run: "^(TestWithoutBPFLSM)$"}}},
	{name: "debian13", more: true, kernel: kernel.Debian13, lsm: lsmDebian, one: true, tests: kernelFacing()},
	{name: "debian13-guard", more: true, kernel: kernel.Debian13, lsm: lsmDebian, one: true,
		tests: append(guarded(), selection{packages: "./test/e2e", run: "^(TestGuardWhileTheAgentUpdatesItself)$"})},
	{name: "newest", kernel: kernel.Newest, lsm: lsmDebian, one: true, tests: kernelFacing(), skip: preempted},
	{name: "newest-guard", kernel: kernel.Newest, lsm: lsmDebian, one: true, tests: guardedAgain()},
}

var (
	attacks   = selection{packages: "./agent/guard", run: "^(TestAttacks)$"}
	guardLife = selection{packages: "./agent/guard", run: "^Test(EveryProgramLoads|SilentHook|GuardOutlivesTheAgent|Leave|Unlock|Shutdown|Unfinished|OthersMay|Overlay|Flood)"}
)

// whole are the tests of the whole agent whose answer depends on the kernel.
const whole = "^(TestClockJumps|TestGuardAndToken|TestRulesHoldAlone)$"

// kernelFacing is what stands directly on the kernel: probes, sensors, containment.
func kernelFacing() []selection {
	return []selection{
		{packages: "./agent/sensor/probe"}, {packages: "./agent/sensor/process"}, {packages: "./agent/sensor/file"}, {packages: "./agent/product/contain"},
	}
}

// guarded is guard and rules, alone and in the whole agent.
func guarded() []selection {
	return []selection{
		{packages: "./test/e2e", run: whole}, {packages: "./agent", run: "^(TestGuardedAgent)$"}, guardLife, {packages: "./agent/rules"},
	}
}

// guardedAgain is of guarded what another kernel is likeliest to answer otherwise: each program loads, is called, does what it is for and
// outlives who loaded it.
func guardedAgain() []selection {
	return []selection{
		{packages: "./test/e2e", run: "^(TestRulesHoldAlone)$"}, {packages: "./agent", run: "^(TestGuardedAgent)$"},
		{packages: "./agent/guard", run: "^Test(EveryProgramLoads|SilentHook|GuardOutlivesTheAgent|Shutdown)$"},
		{packages: "./agent/rules", run: "^Test(EveryProgramLoads|SilentHook|Actions|OutlivesTheAgent)$"},
	}
}

// preempted are the tests under load that find events missing where the kernel preempts tracing programs.
const preempted = "^(TestNothingIsLostUnderLoad|TestNoGhostsFromAttaching|TestTreeIsRightUnderPidReuse|TestWantedAgainAndAgainUnderLoad)$"

// tooSlow are the tests of what outlives the agent, and of what a product's manager waits for. Each loads programs or starts products dozens of
// times, which takes minutes without hardware's help; they run natively. docs/limitations.md says so.
const tooSlow = "^(TestKilledSensors|TestOtherPrograms|TestDamagedPins|TestOverflowWhileNobodyReads|TestForeignReader|TestNextSensor|TestExecInBetween|" +
	"TestPlatformOutlives|TestPinsRemoved|TestWithoutABPFFS|TestFindBPFFS|TestAdopt_|TestOutlive_|TestLeave_|TestSuccessor_|TestKeeper_that|TestAgent_killed_leaves|TestAgent_and_keeper|TestAgent_killed_at_random|TestRecord_corrupt|" +
	"TestCrashLoop_|TestStrain_|TestUnderstudy_ends)"

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
