package powercut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/internal/roottest"
	"bailey/test/rig"
	"bailey/test/vm/cache"
	"bailey/test/vm/initramfs"
	"bailey/test/vm/kernel"
	"bailey/test/vm/qemu"
)

// releases is how many come in during one life of the machine's disk.
const releases = 12

// agentConfig: what is new is proven after it was watched, so that a power cut while it is takes it back. The power goes too often here for safe mode.
const agentConfig = `[boot]
good_after = "4s"
safe_after = 1000
[recorder]
size = "4MiB"
[update]
mirrors = ["file:///srv/repo"]
root = "/tests/cut/root.json"
streams = ["acme/engine/content"]
interval = "1h"
shadow = "2s"
watch = "3s"
[critical]
extra = [%s]
`

// files are programs that are critical, so that a rehearsal asks about them: with a few questions it would measure how an emulated release starts, and nothing else.
const files = 200

// Content of 21 fields, of which the product's sensor fills in 20: as in channel file 291, whatever looks at the last one crashes.
const fields = ",*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,"

// release is the content that comes in as n-th: of three, one does no harm, one dies in its rehearsal, and one crashes at what nobody started before.
func release(n int) string {
	switch {
	case n%3 == 2:
		return fmt.Sprintf("release %d bad\ninstance *%spipe\n", n, fields)
	case n > 0 && n%3 == 0:
		return fmt.Sprintf("release %d late\ninstance /scratch/late-%d%spipe\n", n, n, fields)
	}
	return fmt.Sprintf("release %d good\nprefix /scratch/evil\n", n)
}

// bench is a machine with a disk.
type bench struct {
	t           *testing.T
	c           qemu.Config
	fresh, disk string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a machine")
	}
	for _, program := range []string{"qemu-system-x86_64", "qemu-img", "mkfs.ext4"} {
		if _, err := exec.LookPath(program); err != nil {
			roottest.Unavailable(t, program+" is missing: run `sh tools/setup.sh test`")
		}
	}
	work, err := os.MkdirTemp("", "bailey-cut-") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(work) })
	b := &bench{t: t, fresh: filepath.Join(work, "fresh.qcow2"), disk: filepath.Join(work, "disk.qcow2")}
	if err := b.make(t.Context(), work); err != nil {
		t.Fatal(err)
	}
	return b
}

// make builds what the machine boots with.
func (b *bench) make(ctx context.Context, work string) error {
	dir, err := cache.Dir(ctx)
	if err != nil {
		return err
	}
	k, err := kernel.Get(ctx, dir, kernel.Debian12)
	if err != nil {
		roottest.Unavailable(b.t, err.Error())
	}
	init, built := filepath.Join(work, "init"), filepath.Join(work, "built")
	programs := map[string]string{"inside": "bailey/test/vm/powercut/inside"}
	for _, name := range []string{"bailey", "bailey-fleet", "faulty"} {
		programs[name] = rig.Programs()[name]
	}
	err = initramfs.Build(ctx, init, "bailey/test/vm/guest")
	for name, pkg := range programs {
		err = errors.Join(err, initramfs.Build(ctx, filepath.Join(built, name), pkg))
	}
	if err != nil {
		return err
	}
	accelerator, err := qemu.Accelerator(ctx, dir, init, k)
	if err != nil {
		return err
	}
	b.c = qemu.Config{Kernel: k, Initrd: filepath.Join(work, "initramfs"), Dir: work, LSM: "landlock,lockdown,yama,integrity,apparmor,bpf", Accelerator: accelerator, OneThread: true,
		Memory: 1024, Disk: b.disk, Silence: time.Minute}
	return errors.Join(b.pack(ctx, init, work, built), makeDisk(ctx, work, b.fresh))
}

// makeDisk makes an empty file system.
func makeDisk(ctx context.Context, work, disk string) error {
	raw := filepath.Join(work, "raw")
	defer func() { _ = os.Remove(raw) }()
	err := os.WriteFile(raw, nil, 0o600)
	if err == nil {
		err = os.Truncate(raw, 512<<20)
	}
	for _, argv := range [][]string{{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", raw}, {"qemu-img", "convert", "-O", "qcow2", raw, disk}} {
		if err != nil {
			return err
		}
		var out []byte
		if out, err = exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			err = fmt.Errorf("%s: %w: %s", argv[0], err, out)
		}
	}
	return err
}

// pack writes the initramfs: the programs, the product, and the repository as it was after each release.
func (b *bench) pack(ctx context.Context, init, work, built string) error {
	a, err := initramfs.Guest(ctx, b.c.Initrd, init, b.c.Kernel)
	if err != nil {
		return err
	}
	const here = "tests/cut/"
	err = errors.Join(initramfs.Tools(a, b.c.Kernel), a.Text("tests/list", "/tests/cut /tests/cut/inside 1h\n"),
		a.File(here+"bailey", filepath.Join(built, "bailey")), a.File(here+"inside", filepath.Join(built, "inside")))
	tiny := filepath.Join(work, "tiny")
	err = errors.Join(err, os.WriteFile(tiny, rig.TinyProgram("tiny"), 0o755))
	var critical []string
	for n := range files {
		name := fmt.Sprintf("%scritical/%d", here, n)
		critical = append(critical, fmt.Sprintf("%q", "/"+name))
		err = errors.Join(err, a.File(name, tiny))
	}
	err = errors.Join(err, a.Text(here+"agent.toml", fmt.Sprintf(agentConfig, strings.Join(critical, ", "))))
	product := (&rig.Agent{T: b.t, Built: built, Dir: work}).Folder(rig.Spec{Name: "engine", Events: "exec", Questions: "exec", Files: map[string]string{"content.txt": release(0)}})
	v := rig.NewVendor(b.t, work, "engine")
	err = errors.Join(err, a.Tree(here+"product", product), a.File(here+"root.json", v.Root), a.Tree(here+"repos/0", v.Dir))
	for n := 1; n <= releases; n++ {
		v.Content("engine", fmt.Sprint(n), release(n))
		err = errors.Join(err, a.Tree(fmt.Sprintf("%srepos/%d", here, n), v.Dir))
	}
	return errors.Join(err, a.Close())
}

// renew gives the machine an empty disk.
func (b *bench) renew() {
	b.t.Helper()
	in, err := os.Open(b.fresh)
	if err != nil {
		b.t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(b.disk)
	if err == nil {
		_, err = io.Copy(out, in)
		err = errors.Join(err, out.Close())
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// life is what a machine said between its boot and its power cut.
type life struct {
	checked string // what it found after the boot; empty: the power went before
	state   string // of the update when the power went, as far as it said so
	done    bool   // no release is left to come in
	wall    time.Duration
}

// moment says when the power goes: by the machine itself, when an update comes into the state at, or when the agent has put so many files in their places; or a
// while after the machine started (early), after it said that an update is in a state, or after it has found itself in order.
type moment struct {
	at    string
	write int
	early bool
	state string
	after time.Duration
}

// stateLimit is how long after it has found itself in order a machine's power goes at the latest, whatever state is waited for.
const stateLimit = 30 * time.Second

// boot starts the machine and takes its power.
func (b *bench) boot(m moment) life {
	b.t.Helper()
	l, err := b.tryBoot(m)
	if qemu.Again(err) {
		b.t.Logf("once more: %v", err)
		l, err = b.tryBoot(m)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

// bootLimit is how long a machine may take to find itself in order, and for everything until its power goes.
const bootLimit = 5 * time.Minute

func (b *bench) tryBoot(m moment) (life, error) {
	c := b.c
	switch {
	case m.at != "":
		c.Append = "cut.at=" + m.at
	case m.write > 0:
		c.Append = fmt.Sprintf("cut.write=%d", m.write)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), bootLimit)
	defer cancel()
	vm, err := qemu.Start(ctx, c)
	if err != nil {
		return life{}, err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	began, checked, seen := time.Now(), time.Time{}, time.Time{}
	for over := false; !over; {
		select {
		case <-vm.Ended():
			over = true
			continue
		case <-tick.C:
		}
		report, _ := os.ReadFile(filepath.Join(c.Dir, "report")) // it is not there yet
		said, now := string(report), time.Now()
		if checked.IsZero() && strings.Contains(said, "CUT-CHECKED") {
			checked = now
		}
		if seen.IsZero() && m.state != "" && strings.Contains(said, " "+m.state+"\n") {
			seen = now
		}
		if m.due(now, began, checked, seen) {
			vm.Kill()
			over = true
		}
	}
	return judge(vm.Wait(), m.itself())
}

func (m moment) String() string {
	switch {
	case m.write > 0:
		return fmt.Sprintf("at write %d", m.write)
	case m.early:
		return "early"
	case m.state != "":
		return "soon after " + m.state
	}
	return "a while after the boot"
}

// itself reports whether the machine takes its own power.
func (m *moment) itself() bool { return m.at != "" || m.write > 0 }

// due reports whether the power goes now.
func (m *moment) due(now, began, checked, seen time.Time) bool {
	since := func(t time.Time, d time.Duration) bool { return !t.IsZero() && now.Sub(t) >= d }
	switch {
	case m.itself():
		return false
	case m.early:
		return since(began, m.after)
	case m.state != "":
		return !checked.IsZero() && since(seen, m.after) || since(checked, stateLimit)
	}
	return since(checked, m.after)
}

// judge reads what the machine said.
func judge(end qemu.End, itself bool) (life, error) {
	l := life{wall: end.Wall}
	cut := !itself || strings.Contains(end.Console, "sysrq: Resetting")
	for line := range strings.Lines(end.Report) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "CUT-CHECKED":
			l.checked = rest
		case "CUT-STATE":
			l.state = rest
		case "CUT-DONE":
			l.done = true
		case "CUT-FAIL":
			return l, fmt.Errorf("the machine is not in order:\n%s\nits console:\n%s", end.Report, qemu.Tail(end.Console, 40))
		}
	}
	if end.Err != nil {
		return l, end.Err
	}
	if !cut && !l.done {
		return l, fmt.Errorf("the machine ended by itself:\n%s\nits console:\n%s", end.Report, qemu.Tail(end.Console, 40))
	}
	return l, nil
}
