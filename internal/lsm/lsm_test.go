package lsm

import "testing"

func TestRemedy(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ active, release, line, want string }{
		"debian": {"capability,landlock,lockdown,yama,apparmor", "PRETTY_NAME=\"Debian\"\nID=debian\n", "quiet",
			"put lsm=landlock,lockdown,yama,apparmor,bpf into GRUB_CMDLINE_LINUX in /etc/default/grub, run update-grub, and reboot"},
		"derived_and_set_before": {"capability,yama", "ID=mint\nID_LIKE=\"ubuntu debian\"\n", "ro lsm=yama quiet",
			"put lsm=yama,bpf into GRUB_CMDLINE_LINUX in /etc/default/grub, in place of lsm=yama, run update-grub, and reboot"},
		"rocky": {"capability,selinux", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "",
			`run grubby --update-kernel=ALL --args="lsm=selinux,bpf", and reboot`},
		"suse": {"capability,apparmor", "ID=opensuse-leap\nID_LIKE=\"suse opensuse\"\n", "",
			"put lsm=apparmor,bpf into GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, run grub2-mkconfig -o /boot/grub2/grub.cfg, and reboot"},
		"arch": {"capability,landlock", "ID=arch", "",
			"put lsm=landlock,bpf into GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, run grub-mkconfig -o /boot/grub/grub.cfg, and reboot"},
		"another":    {"capability,yama,bpf", "ID=strange", "", "put lsm=yama,bpf on the kernel's command line, and reboot"},
		"not_to_see": {"", "ID=debian", "", "add bpf to the lsm= list of the kernel's command line, beside the modules that are active now, and reboot"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := remedy("bpf", tc.active, tc.release, tc.line); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}
