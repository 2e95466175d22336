package file

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/health"
)

// wanted is what the marks should be.
type wanted struct {
	exec, open bool
	events     event.KindSet
	scope      *scope
}

// mounts is the mark manager: it keeps the marks of every superblock as wanted while file systems come and go. The reader
// never takes its lock.
type mounts struct {
	s     *Sensor
	kick  int // eventfd: a rescan or a report is due
	full  atomic.Bool
	table atomic.Pointer[mountTable]
	kinds atomic.Uint64 // event.KindSet wanted, for the notifier

	mu      sync.Mutex // serialises scans; guards what follows
	want    wanted
	running bool
	blocks  map[uint64]*superblock // by device
	foreign []mount                // as of the last full scan
	rename  bool                   // FAN_RENAME is supported as far as is known
}

// superblock is what one file system was marked with.
type superblock struct {
	question, notify uint64
	adopted          bool // these are marks of an earlier agent: what else is known here must be found out
	noEvents         bool // handles of this file system cannot be resolved
	fsid             unix.Fsid
	refused          error
	refusedAs        mount // the mount that was refused: another one at the same device is another try
}

// mountTable is what readers need of the mounts. Immutable.
type mountTable struct {
	cacheable map[uint64]struct{} // mount ids on which closing a writer is told
	roots     map[unix.Fsid]mount // where to resolve handles
	known     map[mount]struct{}  // to notice new ones
}

func newMounts(s *Sensor) *mounts {
	m := &mounts{s: s, blocks: make(map[uint64]*superblock), rename: true}
	m.want.scope = &scope{}
	m.table.Store(&mountTable{})
	m.kick = s.nudge
	return m
}

// cacheable reports whether verdicts about files of this mount may be cached in the kernel. Safe for the reader.
func (m *mounts) cacheable(mountID uint64) bool {
	_, ok := m.table.Load().cacheable[mountID]
	return ok
}

// fileKinds are the events that this sensor has.
var fileKinds = event.KindsOf(event.Create, event.CloseWrite, event.Rename, event.Unlink, event.Attrib)

func (m *mounts) wantedEvents() event.KindSet { return event.KindSet(m.kinds.Load()) }

func (m *mounts) wantsEvents() bool { return m.kinds.Load() != 0 }

// poke asks for a full scan soon.
func (m *mounts) poke() {
	m.full.Store(true)
	m.wakeUp()
}

func (m *mounts) wakeUp() { _, _ = unix.Write(m.kick, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// change applies f to what is wanted and, while running, brings the marks up to date before it returns.
func (m *mounts) change(f func(*wanted)) {
	m.mu.Lock()
	f(&m.want)
	m.kinds.Store(uint64(m.want.events & fileKinds))
	var reports []health.Entry
	if m.running {
		reports = m.scan(true)
	}
	m.mu.Unlock()
	m.tell(reports)
}

// clear removes all marks, for good: openers that are not waiting yet are not asked any more.
func (m *mounts) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = false
	for _, group := range []int{m.s.questions, m.s.stacked, m.s.events.fd} {
		if group >= 0 {
			_ = sysMarkFD(group, unix.FAN_MARK_FLUSH|unix.FAN_MARK_FILESYSTEM, 0, -1)
			_ = sysMarkFD(group, unix.FAN_MARK_FLUSH, 0, -1)
		}
	}
	m.s.count.superblocks.Store(0)
	m.table.Store(&mountTable{})
}

// rest leaves the marks as they are to a successor.
func (m *mounts) rest() {
	m.mu.Lock()
	m.running = false
	m.mu.Unlock()
}

// run scans at the start, whenever the own mount namespace changes, when told, and every RescanEvery for the others.
func (m *mounts) run(ctx context.Context) error {
	// Not os.Open: Go's own poller would take the change notices before we see them.
	info, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("watch for mounts: %w", err)
	}
	defer sysClose(info)
	stop := context.AfterFunc(ctx, m.wakeUp)
	defer stop()

	m.mu.Lock()
	m.running = true
	m.mu.Unlock()
	m.rescan(true)
	close(m.s.ready)

	const tick = 250 * time.Millisecond
	next := time.Now().Add(m.s.cfg.RescanEvery)
	fds := []unix.PollFd{{Fd: int32(info), Events: unix.POLLPRI}, {Fd: int32(m.kick), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		fds[0].Revents, fds[1].Revents = 0, 0
		_ = sysPoll(fds, int(tick/time.Millisecond))
		if fds[1].Revents != 0 {
			var drain [8]byte
			_, _ = unix.Read(m.kick, drain[:])
		}
		m.s.raise()
		full := m.full.Swap(false) || time.Now().After(next)
		if full {
			next = time.Now().Add(m.s.cfg.RescanEvery)
		}
		if full || fds[0].Revents&(unix.POLLPRI|unix.POLLERR) != 0 {
			m.rescan(full)
		}
	}
	return nil
}

// rescan scans and then rests four times as long as that took: a storm of mounts costs a fifth of one processor at most.
func (m *mounts) rescan(full bool) {
	start := time.Now()
	m.mu.Lock()
	reports := m.scan(full)
	m.mu.Unlock()
	m.tell(reports)
	time.Sleep(min(4*time.Since(start), 100*time.Millisecond)) //nolint:forbidigo // a rest of a tenth of a second needs no cancelling
}

func (m *mounts) tell(reports []health.Entry) {
	for _, e := range reports {
		m.s.report(e.Component, e.Status, e.Summary, e.Remedy)
	}
}

// scan reads the mounts and marks what is not marked as wanted. It returns what to report once the lock is released.
func (m *mounts) scan(full bool) []health.Entry {
	m.s.count.scans.Add(1)
	all, err := m.read(full)
	if err != nil {
		return []health.Entry{{Component: componentMounts, Status: health.Failed, Summary: "New mounts are not noticed: " + err.Error(), Remedy: "Check that /proc is mounted and readable."}}
	}
	if err := m.forgetDead(); err != nil {
		return []health.Entry{{Component: componentMounts, Status: health.Failed, Summary: "New mounts are not noticed: " + err.Error(), Remedy: "Check that /proc is mounted and readable."}}
	}
	byDev := make(map[uint64][]mount)
	var order []uint64
	for _, mt := range all {
		if m.selected(mt) {
			if byDev[mt.dev] == nil {
				order = append(order, mt.dev)
			}
			byDev[mt.dev] = append(byDev[mt.dev], mt)
		}
	}
	var failed []error
	for _, dev := range order {
		if err := m.cover(dev, byDev[dev]); err != nil {
			failed = append(failed, err)
		}
	}
	m.publish(all)
	m.s.count.uncovered.Store(int64(len(failed)))
	return m.summary(failed)
}

func (m *mounts) summary(failed []error) []health.Entry {
	marked := m.s.count.superblocks.Load()
	if len(failed) == 0 {
		return []health.Entry{{Component: componentMounts, Status: health.OK, Summary: fmt.Sprintf("%d file systems are watched.", marked)}}
	}
	return []health.Entry{{Component: componentMounts, Status: health.Degraded,
		Summary: fmt.Sprintf("%d file systems are watched, %d are not: %v", marked, len(failed), failed[0]),
		Remedy:  "Unmount them, or accept that files on them are executed and opened unasked."}}
}

func (m *mounts) read(full bool) ([]mount, error) {
	all, err := ownMounts()
	if err != nil {
		return nil, err
	}
	if full && len(m.s.cfg.Watch) == 0 {
		if m.foreign, err = foreignMounts(); err != nil {
			return nil, err
		}
	}
	return append(all, m.foreign...), nil
}

// forgetDead drops what is known of superblocks that are gone, as the ledger tells.
func (m *mounts) forgetDead() error {
	alive, err := m.s.ledgerDevs()
	if err != nil {
		return err
	}
	for dev, b := range m.blocks {
		if _, ok := alive[dev]; !ok && b.refused == nil {
			delete(m.blocks, dev)
		}
	}
	return nil
}

// selected reports whether mt is one of the mounts to be watched.
func (m *mounts) selected(mt mount) bool {
	cfg := &m.s.cfg
	if cfg.only != nil && !cfg.only(mt.point) {
		return false
	}
	class := classOf(mt.fsType)
	if class == fsPseudo {
		return false
	}
	if len(cfg.Watch) > 0 {
		named := slices.ContainsFunc(cfg.Watch, func(w string) bool { return filepath.Clean(w) == mt.point })
		return named && (mt.root == "/" || mt.fsType == "btrfs")
	}
	if class == fsRemote {
		return slices.Contains(m.want.scope.prefixes, mt.point)
	}
	return true
}

// publish makes the table that the readers use.
func (m *mounts) publish(all []mount) {
	old := m.table.Load()
	t := &mountTable{cacheable: make(map[uint64]struct{}), roots: make(map[unix.Fsid]mount), known: make(map[mount]struct{})}
	watched := int64(0)
	for _, b := range m.blocks {
		if b.question|b.notify != 0 {
			watched++
		}
	}
	exposed, asked, stacked := false, false, false
	for _, mt := range all {
		b := m.blocks[mt.dev]
		if b == nil || b.question|b.notify == 0 {
			continue
		}
		if b.question != 0 {
			asked = true
			stacked = stacked || m.s.groupOf(mt.fsType) == m.s.stacked
		}
		if b.notify&unix.FAN_CLOSE_WRITE != 0 {
			t.cacheable[mt.id] = struct{}{}
			if r, ok := t.roots[b.fsid]; !ok || r.root != "/" && mt.root == "/" {
				t.roots[b.fsid] = mt
			}
		} else if b.notify != 0 {
			if _, ok := t.roots[b.fsid]; !ok {
				t.roots[b.fsid] = mt
			}
		}
		t.known[mt] = struct{}{}
		if _, ok := old.known[mt]; !ok && b.question&unix.FAN_OPEN_PERM != 0 && m.want.scope.touches(mt.point) {
			exposed = true
		}
	}
	m.s.count.superblocks.Store(watched)
	m.table.Store(t)
	m.s.setPace(asked, stacked)
	m.s.arm(asked)
	// A new mount can bring files into the scope that lay outside it under their other path.
	if exposed && len(old.known) > 0 && m.s.count.ignored.Load() > 0 {
		_ = m.s.cache.flush()
	}
}
