package file

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
)

// resolver turns file handles into paths and identities. It opens by O_PATH only, which asks nobody and tells nobody. Not
// safe for concurrent use.
//
// To open by handle takes a descriptor on the file system. One on a mount of the user's would make his umount fail with
// EBUSY, so the resolver makes a private copy of the mount (open_tree), keeps it only while events keep coming, and drops
// all copies when mounts change.
type resolver struct {
	s     *Sensor
	roots map[unix.Fsid]*rootFD
	table *mountTable // the copies belong to this table
	stat  unix.Statx_t
	link  [32]byte
	path  [unix.PathMax + 1]byte
	long  []byte
	name  [unix.NAME_MAX + 2]byte
	paths interner
	dirs  map[dirKey]string // path of a directory by its handle: for the children of directories that are gone
}

type rootFD struct {
	fd    int
	tree  int // keeps the copy mounted
	used  time.Time
	point string // where the mount that fd copies is; empty when fd is on the mount itself
}

type dirKey struct {
	fsid   unix.Fsid
	handle string
}

// rootLinger is how long a mount's copy is kept after the last event that needed it: making one costs more than an event.
const rootLinger = 200 * time.Millisecond

const maxDirs = 8192

func newResolver(s *Sensor) *resolver {
	return &resolver{s: s, roots: make(map[unix.Fsid]*rootFD), dirs: make(map[dirKey]string)}
}

// root returns a descriptor on the file system of fsid, -1 when there is none.
func (r *resolver) root(id unix.Fsid) int {
	table := r.s.mounts.table.Load()
	if table != r.table {
		r.closeRoots(time.Time{})
		r.table = table
	}
	if root := r.roots[id]; root != nil {
		root.used = time.Now()
		return root.fd
	}
	mt, ok := table.roots[id]
	if !ok {
		return -1
	}
	root, err := openRoot(mt)
	if err != nil {
		return -1
	}
	r.roots[id] = root
	return root.fd
}

// openRoot makes a copy of mt where it can, and opens its root for reading: open_by_handle_at takes no O_PATH descriptor.
// Opening a directory asks nobody, for directories are not marked.
func openRoot(mt mount) (*rootFD, error) {
	tree, err := openMount(mt)
	if err != nil {
		return nil, err
	}
	root := &rootFD{fd: -1, tree: tree, used: time.Now()}
	if mt.pid == 0 { // the kernel copies mounts of our own namespace only
		if c, err := unix.OpenTree(tree, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH); err == nil {
			sysClose(tree)
			root.tree, root.point = c, mt.point
		}
	}
	if root.fd, err = unix.Openat(root.tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		sysClose(root.tree)
		return nil, err
	}
	return root, nil
}

// closeRoots closes the copies that were last used before t; the zero time means all.
func (r *resolver) closeRoots(t time.Time) {
	for id, root := range r.roots {
		if t.IsZero() || root.used.Before(t) {
			sysClose(root.fd)
			sysClose(root.tree)
			delete(r.roots, id)
		}
	}
}

// open opens the object by its handle, -1 when it is gone or cannot be reached.
func (r *resolver) open(o object) int {
	if len(o.handle) < handleHeader {
		return -1
	}
	root := r.root(o.fsid)
	if root < 0 {
		return -1
	}
	fd, errno := sysOpenHandle(root, o.handle, unix.O_PATH|unix.O_CLOEXEC)
	if errno != 0 {
		return -1
	}
	return fd
}

// fill completes f from the named entry and, when it still exists, the object itself.
func (r *resolver) fill(f *event.File, n named, o object) {
	dir := r.open(n.dir)
	f.Path = r.join(dir, n)
	switch fd := r.open(o); {
	case fd >= 0:
		if sysStat(fd, nul[:], &r.stat) == 0 {
			fillFile(f, &r.stat)
			f.Deleted = r.stat.Nlink == 0
		}
		if len(n.dir.handle) == 0 { // an event on an object that nobody reached by a name, as by fchmod
			f.Path, f.Deleted = cutDeleted(r.pathOfFD(fd, o), r.stat.Nlink)
		}
		sysClose(fd)
	case dir >= 0 && len(o.handle) == 0 && len(n.name) > 0:
		// No handle of the object, as before 5.17: look where the name leads now.
		copy(r.name[:], n.name)
		r.name[min(len(n.name), len(r.name)-1)] = 0
		if sysStat(dir, r.name[:], &r.stat) == 0 {
			fillFile(f, &r.stat)
		}
	}
	if dir >= 0 {
		sysClose(dir)
	}
}

// pathOf returns the path of a named entry, empty when its directory is not known.
func (r *resolver) pathOf(n named) string {
	dir := r.open(n.dir)
	p := r.join(dir, n)
	if dir >= 0 {
		sysClose(dir)
	}
	return p
}

// join puts the directory's path, which is read from its descriptor or else remembered, before the entry's name.
func (r *resolver) join(dir int, n named) string {
	parent := ""
	if dir >= 0 {
		parent = r.pathOfFD(dir, n.dir)
	} else if len(n.dir.handle) > 0 {
		parent = r.dirs[dirKey{n.dir.fsid, string(n.dir.handle)}]
	}
	if parent == "" {
		return ""
	}
	b := append(r.path[:0], parent...)
	if len(n.name) == 1 && n.name[0] == '.' || len(n.name) == 0 {
		return parent // the event is on the directory itself
	}
	if parent != "/" {
		b = append(b, '/')
	}
	return r.paths.intern(append(b, n.name...))
}

func (r *resolver) pathOfFD(fd int, o object) string {
	size, errno := sysReadlink(fdLink(&r.link, fd), r.path[:])
	if errno != 0 {
		return ""
	}
	parent := ""
	if root := r.roots[o.fsid]; root != nil && root.point != "" {
		// In the copy the path starts at the mount's root.
		r.long = append(append(r.long[:0], strings.TrimSuffix(root.point, "/")...), r.path[:size]...)
		parent = r.paths.intern(r.long)
		if len(parent) > 1 {
			parent = strings.TrimSuffix(parent, "/")
		}
	} else {
		parent = r.paths.intern(r.path[:size])
	}
	if old, ok := r.dirs[dirKey{o.fsid, string(o.handle)}]; !ok || old != parent {
		if len(r.dirs) >= maxDirs {
			clear(r.dirs)
		}
		r.dirs[dirKey{o.fsid, string(o.handle)}] = parent
	}
	return parent
}
