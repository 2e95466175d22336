package product

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"bailey/agent/health"
	"bailey/agent/product/manifest"
)

// look samples what the product uses. It reports whether the product must be restarted because its state directory went
// over its limit, or came back under it.
func (r *run) look() (restart bool) {
	full := r.measureState(filepath.Join(r.u.dir, r.record.stateName()))
	s := r.group.Stats()
	r.u.mu.Lock()
	r.u.status.Memory, r.u.status.CPU, r.u.status.OOMKills = s.Memory, s.CPU, s.OOMKills
	r.u.mu.Unlock()
	r.strained(s)
	return full != r.readOnly
}

// maxStateFiles bounds how many files a state directory may hold.
const maxStateFiles = 65_536

// measureState reports whether the state directory is over its limit.
func (r *run) measureState(dir string) (full bool) {
	bytes, files := usage(dir)
	limit := int64(r.record.Grants.Limits.State)
	full = bytes > limit || files > maxStateFiles
	r.u.mu.Lock()
	r.u.status.StateBytes, r.u.status.StateFull = bytes, full
	r.u.mu.Unlock()
	e := health.Entry{Component: "product." + r.u.name + ".state", Status: health.OK, Summary: "its state directory is within its limit"}
	if full {
		e.Status = health.Degraded
		e.Summary = fmt.Sprintf("its state directory holds %v in %d files, the limit is %v: it is read-only for the product", manifest.Size(bytes), files, manifest.Size(limit))
		e.Remedy = fmt.Sprintf("grant more (`bailey product grant %s state:N`), or remove files in %s", r.u.name, dir)
	}
	r.u.tell(e)
	return full
}

// usage adds up what is allocated below dir; sparse files count what they take. Files that go meanwhile are not counted.
func usage(dir string) (bytes int64, files int) {
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil {
			bytes += st.Blocks * 512
			files++
		}
		if files > maxStateFiles {
			return filepath.SkipAll
		}
		return nil
	})
	return bytes, files
}
