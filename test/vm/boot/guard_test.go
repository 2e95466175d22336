package boot

import (
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"bailey/agent/unlock/operatorkey"
	"bailey/agent/unlock/token"
	"bailey/test/vm/kernel"
	"bailey/test/vm/machine"
)

// operator can sign tokens for a machine.
type operator struct {
	protected
	key  ed25519.PrivateKey
	host token.Host
}

// TestGuardedService: with the guard on, root stops, replaces and removes the service only with a token; everything else that a machine
// does, and a shutdown above all, takes no longer than without Bailey; and who has the console gets past a lost key.
func TestGuardedService(t *testing.T) {
	besideOthers(t)
	p := withDebs(t, machine.Options{Kernel: kernel.Debian12})
	before := p.Must(everything)
	var without, with times
	if long() {
		p.unrelatedPackages()
		without = p.measure()
	}

	o := p.guarded()
	if long() {
		with = o.measure()
		o.endedWell()
		o.locked("after the measurements")
	}
	compare(t, without, with)

	o.refused()
	o.upgradeWithToken()
	o.stopWithToken()
	o.refusedRemoval()
	o.lostKey()
	if long() {
		o.doctor()
		o.unlock("stop,upgrade,config,state")
	}
	o.Must("rmdir /etc/systemd/system.control/bailey.service.d") // systemd's, from when it was refused set-property
	t.Log(o.Must("dpkg --purge bailey"))
	if after := o.Must(everything); after != before {
		t.Errorf("before the installation and after the purge differ:\n--- before\n%s--- after\n%s", before, after)
	}
}

func newOperator(p protected, key ed25519.PrivateKey) *operator {
	p.t.Helper()
	host, err := token.ParseHost(strings.TrimSpace(p.Must("bailey operator host")))
	if err != nil {
		p.t.Fatal(err)
	}
	return &operator{protected: p, key: key, host: host}
}

// guarded installs the package, with an operator's key and the guard on, and boots with it.
func (p protected) guarded() *operator {
	p.t.Helper()
	public, private, err := operatorkey.Generate("alice")
	if err != nil {
		p.t.Fatal(err)
	}
	p.Must("dpkg -i " + deb + " && echo '" + public.String() + "' >/etc/bailey/operators/alice.pub")
	p.Must(`printf '[guard]\nenabled = "auto"\n' >>/etc/bailey/agent.toml`)
	p.install(judge)
	p.Reboot()
	o := newOperator(p, private)
	o.locked("at first")
	p.endedWell()
	return o
}

// endedWell: a shutdown in order is none that counts against what runs, however soon after the boot it comes.
func (p protected) endedWell() {
	p.t.Helper()
	if out := p.Must("bailey boot"); strings.Contains(out, "did not end well") {
		p.t.Errorf("boots that ended in order do not count as such: %s", out)
	}
}

// locked waits until the guard is in force, and looks at it.
func (o *operator) locked(when string) {
	o.t.Helper()
	o.eventually("the guard is locked "+when, "bailey status | grep -q '^guard  *locked'")
	o.protects(when)
	if out, code := o.Run("kill -9 " + mainPID + "; kill -STOP $(pgrep -x bailey)"); code == 0 {
		o.t.Errorf("%s: root can end and stop the agent: %s", when, out)
	}
}

// unlock has the machine unlocked for scopes.
func (o *operator) unlock(scopes string) {
	o.t.Helper()
	s, err := token.ParseScopes(strings.Split(scopes, ","))
	if err != nil {
		o.t.Fatal(err)
	}
	now := o.Must("date +%s")
	var seconds int64
	if _, err := fmt.Sscan(now, &seconds); err != nil {
		o.t.Fatal(err)
	}
	tok, err := token.Issue(token.Grant{Host: o.host, Scopes: s, Issued: time.Unix(seconds, 0), For: time.Hour}, o.key)
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Log(strings.TrimSpace(o.Must("bailey unlock --token " + tok.Text())))
}

// asks are what root asks systemd to do to the service.
var asks = []string{"systemctl stop bailey", "systemctl restart bailey.service", "systemctl kill -s KILL bailey", "systemctl freeze bailey", "systemctl mask bailey",
	"systemctl disable bailey", "systemctl set-property bailey MemoryMax=1M", "systemctl edit --force bailey </dev/null",
	"busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager StopUnit ss bailey.service replace"}

// refused: root's ways to stop the service do nothing to it and are told of, with who did it.
func (o *operator) refused() {
	o.t.Helper()
	before := o.Must("echo " + mainPID + "; systemctl show -P UnitFileState bailey")
	o.Must("bailey events tamper --json >/run/tamper 2>&1 & sleep 1")
	for _, ask := range asks {
		out, code := o.Run("EDITOR=true " + ask)
		o.t.Logf("%s: %d %s", ask, code, strings.TrimSpace(out))
		if code == 0 && !strings.Contains(ask, "set-property") { // that says nothing, and does nothing
			o.t.Errorf("%s succeeds: %s", ask, out)
		}
		if after := o.Must("echo " + mainPID + "; systemctl show -P UnitFileState bailey"); after != before {
			o.t.Fatalf("%s: before %q, after %q", ask, before, after)
		}
	}
	if out := o.Must("systemctl show -p ActiveState,FreezerState bailey"); !strings.Contains(out, "ActiveState=active") || strings.Contains(out, "frozen") {
		o.t.Errorf("the service is %q", out)
	}
	if out, _ := o.Run("cat /sys/fs/cgroup/system.slice/bailey.service/memory.max; find /etc/systemd /run/systemd -path '*bailey.service.d/*'"); out != "max\n" {
		o.t.Errorf("the limit of memory, and files of the unit's: %q", out)
	}
	o.protects("after it was refused")
	told := o.Must("sleep 1; journalctl -u bailey -b --no-pager -o cat | grep 'asked the service manager'")
	events := o.Must("cat /run/tamper")
	for _, ask := range asks {
		words := strings.Fields(strings.TrimSuffix(ask, " </dev/null"))
		command := strings.Join(words, " ")
		line := lineWith(told, `command="`+command)
		if !strings.Contains(line, "refused=true") || !strings.Contains(line, "/usr/bin/dash (uid 0) < ") || !strings.Contains(line, "vm-hand (uid 0) < 1 ") {
			o.t.Errorf("%s is not told of with who did it: %q", ask, line)
		}
		if event := lineWith(events, command); !strings.Contains(event, `"service_manager"`) || !strings.Contains(event, `"refused":true`) {
			o.t.Errorf("%s is no event: %q", ask, event)
		}
	}
	if o.t.Failed() {
		o.t.Logf("log:\n%s\nevents:\n%s", told, events)
	}
	o.Must("kill $(pgrep -f '^bailey events')")
}

func lineWith(text, part string) string {
	for l := range strings.Lines(text) {
		if strings.Contains(l, part) {
			return l
		}
	}
	return ""
}

// upgradeWithToken: the package is not replaced without one.
func (o *operator) upgradeWithToken() {
	o.t.Helper()
	if out, code := o.Run("dpkg -i " + nextDeb); code == 0 || !strings.Contains(out, "--scope upgrade") {
		o.t.Errorf("an upgrade without a token: %d %s", code, out)
	}
	if out := o.Must("bailey status; dpkg -s bailey"); !strings.Contains(out, "v1.0.0") || !strings.Contains(out, "Status: install ok installed") {
		o.t.Errorf("after an upgrade that was refused: %s", out)
	}
	o.unlock("upgrade")
	if out, code := o.Run("systemctl stop bailey"); code == 0 {
		o.t.Errorf("a token for an upgrade allows a stop: %s", out)
	}
	o.t.Log(o.Must("dpkg -i " + nextDeb))
	if out := o.Must("bailey status"); !strings.Contains(out, "v1.0.1") {
		o.t.Errorf("after the upgrade: %s", out)
	}
	o.Must("bailey lock")
	o.locked("after the upgrade")
}

// stopWithToken: what is refused without one is done with one, and refused again.
func (o *operator) stopWithToken() {
	o.t.Helper()
	o.unlock("stop")
	o.Must("systemctl restart bailey")
	o.eventually("it is back, and what the token allows is as before", "bailey status | grep '^guard  *unlocked for stop'")
	o.Must("systemctl stop bailey")
	if out, _ := o.Run("systemctl is-active bailey; ls -A /sys/fs/bpf; pgrep -l bailey"); out != "inactive\n" {
		o.t.Errorf("after a stop: %s", out)
	}
	if _, code := o.Run(bad); code != 0 {
		o.t.Errorf("while it is stopped %s ends with %d", bad, code)
	}
	o.Must("systemctl start bailey")
	o.eventually("it is back", "bailey status | grep '^guard  *unlocked for stop'")
	o.Must("bailey lock")
	o.locked("after it was locked")
	if out, code := o.Run("systemctl stop bailey"); code == 0 {
		o.t.Errorf("it can be stopped when it is locked again: %s", out)
	}
}

// lostKey: who has the console boots without the guard, which is written down, and puts another key in the place of the lost one.
func (o *operator) lostKey() {
	o.t.Helper()
	o.NextBoot("", "bailey.guard=off")
	o.Reboot()
	o.protects("without the guard")
	status := o.Must("bailey status; bailey doctor || :; bailey journal show --kind unlock --json")
	for _, want := range []string{"not active (this machine was booted with bailey.guard=off)", "reboot without it", `"result":"off"`} {
		if !strings.Contains(status, want) {
			o.t.Errorf("nothing says %q:\n%s", want, status)
		}
	}
	o.Must("rm /etc/bailey/operators/alice.pub") // the operator's way: new keys
	public, private, err := operatorkey.Generate("bob")
	if err != nil {
		o.t.Fatal(err)
	}
	o.Must("echo '" + public.String() + "' >/etc/bailey/operators/bob.pub")
	o.key = private
}

// without bpf, as Debian and others boot by default.
const withoutBPF = "landlock,lockdown,yama,integrity,apparmor"

// doctor: without bpf among the security modules everything but the guard works, doctor and status name the remedy, and it is one.
func (o *operator) doctor() {
	o.t.Helper()
	o.NextBoot(withoutBPF, "")
	o.Reboot()
	o.protects("without bpf in lsm=")
	o.eventually("the guard is given up", "bailey status | grep '^guard  *not active'")
	remedy := regexp.MustCompile(`put lsm=(\S+) into GRUB_CMDLINE_LINUX in /etc/default/grub, in place of lsm=` + withoutBPF + `, run update-grub, and reboot`)
	doctor, status := o.Must("bailey doctor"), o.Must("bailey status")
	m := remedy.FindStringSubmatch(doctor)
	if m == nil || !remedy.MatchString(status) || !regexp.MustCompile(`(?m)^degraded +bpf\.lsm_active `).MatchString(doctor) {
		o.t.Fatalf("doctor and status do not say how to get what is missing:\n%s\n%s", doctor, status)
	}
	o.NextBoot(m[1], "")
	o.Reboot()
	o.locked("as doctor says, with another key")
	if doctor := o.Must("bailey doctor"); strings.Contains(doctor, "lsm=") || !regexp.MustCompile(`(?m)^ok +bpf\.lsm_active `).MatchString(doctor) {
		o.t.Errorf("doctor is not content:\n%s", doctor)
	}
}

// refusedRemoval: without a token nothing goes.
func (o *operator) refusedRemoval() {
	o.t.Helper()
	if out, code := o.Run("dpkg --purge bailey"); code == 0 || !strings.Contains(out, "--scope stop,upgrade,config,state") {
		o.t.Errorf("a removal without a token: %d %s", code, out)
	}
	o.locked("after a removal was refused")
}

// times are how long something took.
type times map[string][]time.Duration

// measure ends the machine by a reboot and by power off, and replaces an unrelated package.
func (p protected) measure() times {
	p.t.Helper()
	const rounds = 3
	out := times{}
	note := func(what string, d time.Duration) { out[what] = append(out[what], d) }
	for range rounds {
		p.settled()
		note("reboot", p.Reboot())
		p.settled()
		note("poweroff", p.Down("systemctl poweroff --no-block"))
		p.Boot()
		p.settled()
		p.Must("dpkg --purge unrelated >/dev/null 2>&1; apt-get install -y /opt/deb/unrelated_1.deb")
		for range 3 {
			begin := time.Now()
			p.Must("apt-get install -y /opt/deb/unrelated_2.deb")
			note("apt upgrade", time.Since(begin))
			p.Must("dpkg -i /opt/deb/unrelated_1.deb")
		}
	}
	return out
}

// settled waits until what the boot started is done, the agent's start included, where there is one.
func (p protected) settled() {
	p.t.Helper()
	p.Must("! command -v bailey >/dev/null || for i in $(seq 200); do bailey product list | grep -q running && break; sleep 0.2; done")
}

// patience is how much longer than without Bailey something may take. What really waits for somebody waits for a time-out: 5 s of an
// abort, 30 s of a stop, 90 s of a shutdown. Emulated machines on a busy host are slow and unsteady, so the fastest of all rounds counts.
const patience = 4 * time.Second

func compare(t *testing.T, without, with times) {
	t.Helper()
	for _, what := range []string{"reboot", "poweroff", "apt upgrade"} {
		rounds := len(with[what])
		if rounds == 0 {
			continue
		}
		a, b := median(without[what]), median(with[what])
		t.Logf("%-12s without %6.2f s, with %6.2f s, difference %+.2f s (medians of %d)", what, a.Seconds(), b.Seconds(), (b - a).Seconds(), rounds)
		if slices.Min(with[what]) > 2*slices.Min(without[what])+patience {
			t.Errorf("%s is delayed: %v without, %v with", what, without[what], with[what])
		}
	}
}

func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2]
}

// unrelatedPackages makes a package in two versions.
func (p protected) unrelatedPackages() {
	p.t.Helper()
	for _, v := range []string{"1", "2"} {
		dir := filepath.Join("/root/unrelated", v)
		p.Must("mkdir -p " + dir + "/DEBIAN " + dir + "/usr/bin && cp " + good + " " + dir + "/usr/bin/unrelated && " +
			`printf 'Package: unrelated\nVersion: ` + v + `\nArchitecture: all\nMaintainer: Nobody <nobody@example.invalid>\nDescription: nothing\n' >` + dir + `/DEBIAN/control &&
			printf '#!/bin/sh\nset -e\n/usr/bin/unrelated\n' >` + dir + "/DEBIAN/postinst && chmod 755 " + dir + "/DEBIAN/postinst && " +
			"dpkg-deb --root-owner-group -b " + dir + " /opt/deb/unrelated_" + v + ".deb")
	}
	p.Must("rm -r /root/unrelated")
}
