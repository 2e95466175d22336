package file

import "strings"

// fsClass says how a type of file system is treated.
type fsClass uint8

const (
	fsLocal  fsClass = iota // marked
	fsPseudo                // never marked: holds no files that anybody executes or keeps
	fsRemote                // marked only where the operator names it: answers about it depend on a server or a daemon
)

// pseudoTypes have no files of their own, or refuse permission marks, or (devtmpfs is not among them) cannot be executed from.
var pseudoTypes = map[string]struct{}{
	"proc": {}, "sysfs": {}, "cgroup": {}, "cgroup2": {}, "cpuset": {}, "devpts": {}, "bpf": {}, "tracefs": {}, "debugfs": {},
	"securityfs": {}, "configfs": {}, "pstore": {}, "efivarfs": {}, "mqueue": {}, "binfmt_misc": {}, "fusectl": {},
	"autofs": {}, "rpc_pipefs": {}, "nfsd": {}, "nsfs": {}, "sockfs": {}, "pipefs": {}, "anon_inodefs": {}, "bdev": {},
	"selinuxfs": {}, "smackfs": {}, "apparmorfs": {}, "resctrl": {}, "hugetlbfs": {}, "pidfs": {}, "xenfs": {},
	"usbfs": {}, "openpromfs": {}, "functionfs": {}, "gadgetfs": {}, "zonefs": {}, "secretmem": {}, "guest_memfd": {},
}

// remoteTypes are served by another machine, the hypervisor or a process of this one.
var remoteTypes = map[string]struct{}{
	"nfs": {}, "nfs4": {}, "cifs": {}, "smb3": {}, "smbfs": {}, "ceph": {}, "9p": {}, "afs": {}, "coda": {}, "lustre": {},
	"gfs2": {}, "ocfs2": {}, "glusterfs": {}, "beegfs": {}, "orangefs": {}, "pvfs2": {}, "gpfs": {}, "ncpfs": {}, "ncp": {},
	"virtiofs": {}, "vboxsf": {}, "prl_fs": {}, "vmhgfs": {}, "fuse": {}, "fuseblk": {}, "davfs": {}, "sshfs": {},
}

func classOf(fsType string) fsClass {
	if _, ok := pseudoTypes[fsType]; ok {
		return fsPseudo
	}
	if _, ok := remoteTypes[fsType]; ok || strings.HasPrefix(fsType, "fuse.") {
		return fsRemote
	}
	return fsLocal
}
