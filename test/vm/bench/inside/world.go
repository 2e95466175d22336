package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"bailey/test/bench/contender"
	"bailey/test/vm/bench/figure"

	"golang.org/x/sys/unix"
)

// programs is where the host put what is run here.
const programs = "/tests/programs"

// world is the filesystem that is worked on: ext4 on a RAM disk, whose state is the agent's too, as on a machine with one disk.
type world struct {
	o      options
	tokens []string
	builds int // so far
	// session is the control group of what works: in the root the kernel does not account memory, which costs, and where all is in the
	// root it never begins to.
	session int
}

func newWorld(o options) (*world, error) {
	w := &world{o: o}
	if err := errors.Join(w.mount(), w.login()); err != nil {
		return nil, err
	}
	dir := filepath.Join(o.disk, depth)
	for _, d := range []string{dir, filepath.Join(o.disk, "bin"), filepath.Join(o.disk, "var/lib")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	content := bytes.Repeat([]byte("0123456789abcde\n"), 256)
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, "file"+strconv.Itoa(i)), content, 0o644); err != nil {
			return nil, err
		}
	}
	for _, p := range []string{"nothing", "bailey"} {
		if err := copyProgram(filepath.Join(programs, p), filepath.Join(o.disk, "bin", p)); err != nil {
			return nil, err
		}
	}
	if buildable() {
		if err := w.addToolchain(); err != nil {
			return nil, err
		}
	}
	if o.tokens != "" {
		text, err := os.ReadFile(o.tokens)
		if err != nil {
			return nil, err
		}
		w.tokens = strings.Fields(string(text))
	}
	return w, nil
}

// login makes the control group of a user's session.
func (w *world) login() error {
	const group = "/sys/fs/cgroup/user.slice"
	err := os.Mkdir(group, 0o755)
	if err == nil {
		w.session, err = unix.Open(group, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	return err
}

// mount makes the filesystem.
func (w *world) mount() error {
	const device = "/dev/ram0"
	module, err := os.Open("/tests/brd.ko")
	if err != nil {
		return err
	}
	defer module.Close()
	if err := unix.FinitModule(int(module.Fd()), "rd_nr=1 rd_size=393216", 0); err != nil {
		return fmt.Errorf("load the module of RAM disks: %w", err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", device).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w\n%s", err, out)
	}
	if err := os.MkdirAll(w.o.disk, 0o755); err != nil {
		return err
	}
	return unix.Mount(device, w.o.disk, "ext4", unix.MS_NOATIME, "")
}

func copyProgram(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o755)
}

// measure starts a lane, works in it, and stops it.
func (w *world) measure(l lane) (figure.Lane, error) {
	if err := l.start(); err != nil {
		return figure.Lane{}, errors.Join(fmt.Errorf("start: %w", err), l.stop())
	}
	figures, err := w.work(l)
	return figures, errors.Join(err, l.stop())
}

// work does all that is measured.
func (w *world) work(l lane) (figure.Lane, error) {
	if err := rest(); err != nil {
		return figure.Lane{}, err
	}
	figures, err := workApart(w.session, w.o.disk, w.o.batches, l.hooks())
	if err != nil || !l.builds() || w.builds == 0 {
		return figures, err
	}
	for range w.o.builds {
		took, err := w.build()
		if err != nil {
			return figures, err
		}
		figures.Nanoseconds[figure.Build] = append(figures.Nanoseconds[figure.Build], float64(took.Nanoseconds()))
	}
	return figures, nil
}

// rest waits until the machine does next to nothing: what a lane has started is not what is measured.
func rest() error {
	unix.Sync()
	calm := 0
	for range 120 {
		before, err := contender.ProcessorTimes()
		if err != nil {
			return err
		}
		<-time.After(time.Second)
		after, err := contender.ProcessorTimes()
		if err != nil {
			return err
		}
		if calm++; after.Busy-before.Busy > 3 {
			calm = 0
		}
		if calm == 2 {
			return nil
		}
	}
	return errors.New("the machine does not come to rest")
}
