package boot

import (
	"path/filepath"
	"strings"
	"testing"

	"bailey/agent/unlock/operatorkey"
	"bailey/test/rig"
	"bailey/test/vm/initramfs"
	"bailey/test/vm/kernel"
)

// smallUnit has so little memory that the kernel has to kill, and leaves time to look around before the next start: systemd starts
// nothing by hand meanwhile.
const smallUnit = unit + `MemoryMax=250M
MemorySwapMax=0
OOMPolicy=continue
RestartSec=75
`

// kept is a directory whose files a rule keeps.
const kept = "/srv/kept"

// TestKilledForMemory: the kernel kills keeper, agent and product because they have no memory left. While nobody of the platform lives the
// guard and the rules hold; the agent that the service manager starts again takes both over, and the journal says so.
func TestKilledForMemory(t *testing.T) {
	if !long() {
		t.Skip("`make vm ALL=1` runs it")
	}
	besideOthers(t)
	ruler := rig.Spec{
		Name: "ruler", Request: `rules = ["exec", "unlink_rename"]`, Limits: "memory = \"64MiB\"\n",
		Settings: map[string]string{"rules": "bad exec 1h file=" + bad + "; kept unlink_rename 1h below=" + kept},
	}
	inject := injected(t, ruler)
	withAgent(t, inject)
	if err := initramfs.Build(t.Context(), filepath.Join(inject, "usr/local/bin/bomb"), "bailey/test/vm/boot/testdata/bomb"); err != nil {
		t.Fatal(err)
	}
	public, private, err := operatorkey.Generate("alice")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(inject, "etc/bailey/agent.toml"), "[guard]\nenabled = \"on\"\n[operator]\nkeys = [\""+public.String()+"\"]\nkey_dir = \"\"\n", 0o644)
	write(t, filepath.Join(inject, kept, "file"), "kept", 0o644)
	p := startUnit(t, kernel.Debian12, inject, smallUnit)
	p.eventually("the guard is locked", "bailey status | grep -q locked")
	o := newOperator(p, private)
	p.install(ruler)
	p.eventually("the rules are in force", "! "+bad+" && bailey rules | grep -q kept")

	// Keeper and agent keep themselves from the kernel's choice, and only an operator can take that from them.
	keeper := strings.TrimSpace(p.Must("systemctl show -p MainPID --value bailey"))
	agent := strings.TrimSpace(p.Must("pgrep -o -P " + keeper))
	product := strings.TrimSpace(p.Must("pgrep -o -f '[f]aulty --events'"))
	all := "for p in " + keeper + " " + agent + " " + product + "; do "
	if _, code := p.Run("echo 0 >/proc/" + keeper + "/oom_score_adj"); code == 0 {
		t.Error("root makes the keeper the kernel's choice without a token")
	}
	o.unlock("state") // not "stop": systemd would read the unit again, and write its control group anew
	group := func(pid string) string {
		return "/sys/fs/cgroup" + strings.TrimSpace(p.Must("sed -n s/^0:://p /proc/"+pid+"/cgroup"))
	}
	serviceGroup, productGroup := group(keeper), group(product)
	p.Must("echo 1 >" + serviceGroup + "/memory.oom.group && for p in " + keeper + " " + agent + "; do echo 0 >/proc/$p/oom_score_adj || exit 1; done")
	p.Must("bailey lock")
	p.Must("bomb " + productGroup + " >/tmp/bomb 2>&1 &")
	p.eventually("the product is dead", "! kill -0 "+product)
	p.Must("bomb " + serviceGroup + " >/tmp/bomb 2>&1 &") // whatever the agent started meanwhile ends with it
	p.eventually("nobody is left", "! grep -q . "+serviceGroup+"/cgroup.procs "+productGroup+"/cgroup.procs")
	p.Must(all + "if kill -0 $p; then exit 1; fi; done")
	killed := p.Must("journalctl -k -b --no-pager -o cat")
	for who, pid := range map[string]string{"keeper": keeper, "agent": agent, "product": product} {
		if !strings.Contains(killed, "Killed process "+pid+" ") {
			t.Errorf("the kernel does not say that it killed the %s (%s)", who, pid)
		}
	}

	// Nobody of the platform lives, and the kernel keeps no inode that nobody has open.
	p.Must("sync; echo 3 >/proc/sys/vm/drop_caches")
	for what, command := range map[string]string{
		"remove the agent's state":      "rm -rf /var/lib/bailey",
		"write to it":                   "echo x >>$(find /var/lib/bailey -type f | head -n 1)",
		"remove the agent's program":    "rm /usr/bin/bailey",
		"change the configuration":      "echo >>/etc/bailey/agent.toml",
		"remove the guard's pins":       "rm -r /sys/fs/bpf/*-guard",
		"remove the rules' pins":        "rm -r /sys/fs/bpf/*-rules",
		"switch the guard off":          "echo 0 >/proc/sys/kernel/ftrace_enabled",
		"unmount the pins":              "umount -l /sys/fs/bpf",
		"run what a rule refuses":       bad,
		"remove what a rule keeps":      "rm " + kept + "/file",
		"start an agent that is nobody": "timeout 5 /usr/bin/bailey agent",
	} {
		if out, code := p.Run(command); code == 0 {
			t.Errorf("%s with nobody alive: it is possible: %s", what, out)
		} else if !strings.Contains(out, "not permitted") && !strings.Contains(out, "not trust") && !strings.Contains(out, "must be superuser") {
			t.Errorf("%s with nobody alive: not for the guard's sake: %s", what, out)
		}
	}
	if out := p.Must("systemctl show -p SubState -p NRestarts bailey"); !strings.Contains(out, "SubState=auto-restart") || !strings.Contains(out, "NRestarts=0") {
		t.Errorf("systemd started the agent while these were tried: %s", out)
	}

	for range 4 { // no command may take so long
		p.Run("for i in $(seq 60); do test $(systemctl show -p NRestarts --value bailey) -ge 1 && exit 0; sleep 0.5; done; exit 1")
	}
	p.eventually("the next agent serves", "bailey status")
	p.eventually("the next agent takes the guard over", "journalctl -u bailey -b --no-pager -o cat | grep -q 'the guard is locked.*adopted=true'")
	p.eventually("the journal says that the rules were taken over", "bailey journal show --kind rule | grep what=adopted | grep -q bad && bailey journal show --kind rule | grep what=adopted | grep -q kept")
	p.eventually("it hears what was tried meanwhile", "bailey history --since 1h --json --kind tamper | grep -q ftrace_enabled")
	for _, command := range []string{"rm " + kept + "/file", bad, "rm /usr/bin/bailey", "kill -9 $(systemctl show -p MainPID --value bailey)"} {
		if out, code := p.Run(command); code == 0 || !strings.Contains(out, "not permitted") {
			t.Errorf("%s with the next agent: %d %s", command, code, out)
		}
	}
	p.eventually("the product is back", "pgrep -f '[f]aulty --events'")
	p.Must("bailey journal verify")
}
