package critical

// Programs by what they are for. A role's program that exists is in the set with its libraries and, where a package owns
// it, with that package's files. Programs of other names get in by running as PID 1, by being a shell in /etc/shells, or
// by belonging to a package that the distribution calls essential or required.
var roles = [...]string{
	// init and what it starts before anybody can log in
	"/sbin/init", "/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd-journald", "/usr/lib/systemd/systemd-udevd",
	"/usr/lib/systemd/systemd-logind", "/usr/bin/dbus-daemon", "/usr/bin/dbus-broker", "/usr/bin/dbus-broker-launch",
	"/sbin/openrc", "/sbin/openrc-run", "/usr/bin/runit", "/sbin/udevd", "/usr/sbin/modprobe", "/usr/bin/kmod", "/usr/bin/mount",
	// shells and what scripts of the boot need
	"/bin/sh", "/bin/bash", "/usr/bin/env", "/usr/bin/busybox",
	// login, near and far
	"/bin/login", "/sbin/agetty", "/usr/sbin/sshd", "/usr/lib/openssh/sshd-session", "/usr/libexec/openssh/sshd-session",
	"/usr/sbin/dropbear", "/usr/bin/su", "/usr/bin/sudo", "/usr/sbin/unix_chkpwd", "/usr/libexec/sssd/sssd_be", "/usr/sbin/sssd",
	// package managers
	"/usr/bin/dpkg", "/usr/bin/apt", "/usr/bin/apt-get", "/usr/lib/apt/methods/http", "/usr/bin/rpm", "/usr/bin/dnf", "/usr/bin/dnf5",
	"/usr/bin/dnf-3", "/usr/bin/microdnf", "/usr/bin/yum", "/usr/bin/zypper", "/usr/bin/rpm-ostree", "/usr/bin/pacman", "/sbin/apk",
	// the network
	"/usr/lib/systemd/systemd-networkd", "/usr/lib/systemd/systemd-resolved", "/usr/sbin/NetworkManager", "/usr/sbin/dhclient",
	"/usr/sbin/dhcpcd", "/sbin/ip", "/sbin/ifup", "/usr/sbin/wpa_supplicant", "/usr/sbin/netplan", "/usr/sbin/chronyd",
	"/usr/lib/systemd/systemd-timesyncd",
}

// data are files that these programs cannot do without and that no package owns with a digest.
var data = [...]string{
	"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/nsswitch.conf",
	"/etc/resolv.conf", "/etc/hosts", "/etc/fstab", "/etc/machine-id", "/etc/localtime", "/etc/shells", "/etc/hostname",
}

// ballast are parts of packages that nothing needs to start, log in or be repaired.
var ballast = [...]string{
	"/usr/share/doc/", "/usr/share/man/", "/usr/share/info/", "/usr/share/locale/", "/usr/share/lintian/", "/usr/share/bug/",
	"/usr/include/", "/usr/src/",
}

// libraryDirs are searched for libraries after what /etc/ld.so.conf names.
var libraryDirs = [...]string{"/lib64", "/usr/lib64", "/lib", "/usr/lib"}
