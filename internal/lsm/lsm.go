// Package lsm says which security modules this machine's kernel calls, and how an operator boots it with another one. It changes
// nothing.
//
// Invariant: what it says to put on the kernel's command line has every module that is active now.
package lsm

import (
	"bufio"
	"os"
	"slices"
	"strings"
)

const (
	activeFile  = "/sys/kernel/security/lsm"
	releaseFile = "/etc/os-release"
)

// Remedy says how to boot this machine with another security module.
func Remedy(module string) string {
	active, _ := os.ReadFile(activeFile) // without it the operator is told less
	release, _ := os.ReadFile(releaseFile)
	line, _ := os.ReadFile("/proc/cmdline")
	return remedy(module, strings.TrimSpace(string(active)), string(release), string(line))
}

// remedy makes the text from what the files hold. The kernel takes the last lsm= of its command line, and nothing of its own list then.
func remedy(module, active, release, line string) string {
	if active == "" {
		return "add " + module + " to the lsm= list of the kernel's command line, beside the modules that are active now, and reboot"
	}
	modules := slices.DeleteFunc(strings.Split(active, ","), func(m string) bool { return m == "capability" || m == module })
	want := "lsm=" + strings.Join(append(modules, module), ",")
	in := ""
	for word := range strings.FieldsSeq(line) {
		if strings.HasPrefix(word, "lsm=") {
			in = ", in place of " + word
		}
	}
	switch {
	case like(release, "debian", "ubuntu"):
		return "put " + want + " into GRUB_CMDLINE_LINUX in /etc/default/grub" + in + ", run update-grub, and reboot"
	case like(release, "fedora", "rhel", "centos"):
		return `run grubby --update-kernel=ALL --args="` + want + `", and reboot`
	case like(release, "suse", "opensuse"):
		return "put " + want + " into GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub" + in + ", run grub2-mkconfig -o /boot/grub2/grub.cfg, and reboot"
	case like(release, "arch"):
		return "put " + want + " into GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub" + in + ", run grub-mkconfig -o /boot/grub/grub.cfg, and reboot"
	}
	return "put " + want + " on the kernel's command line" + in + ", and reboot"
}

// like reports whether os-release(5) names one of the distributions, or says that it is like one.
func like(release string, distributions ...string) bool {
	s := bufio.NewScanner(strings.NewReader(release))
	for s.Scan() {
		key, value, _ := strings.Cut(s.Text(), "=")
		if key != "ID" && key != "ID_LIKE" {
			continue
		}
		for word := range strings.FieldsSeq(strings.Trim(value, `"'`)) {
			if slices.Contains(distributions, word) {
				return true
			}
		}
	}
	return false
}
