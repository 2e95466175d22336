package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// wanted is what the kernel's command line says of a name.
func wanted(name string) string {
	line, _ := os.ReadFile("/proc/cmdline")
	for _, w := range strings.Fields(string(line)) {
		if value, ok := strings.CutPrefix(w, name+"="); ok {
			return value
		}
	}
	return ""
}

// cut takes the power, nothing being written back.
func cut() error { return os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0) }

// cutAtState takes the power as soon as the record says that an update came into a state. What it said when the machine booted is no such moment.
func cutAtState(at string) {
	before := recorded()
	err := follow(filepath.Dir(record), func(uint32) error {
		now := recorded()
		if now != before && now.State == at {
			return cut()
		}
		before = now
		return nil
	})
	fmt.Printf("CUT-FAIL the power does not go at %s: %v\n", at, err)
}

// cutAtWrite takes the power as soon as the agent has put so many files or directories in their places, by renaming them: the moment at which it believes that
// they are there, and the disk may not know of them.
func cutAtWrite(n int) {
	err := follow(state, func(mask uint32) error {
		if mask&unix.IN_MOVED_TO != 0 {
			n--
		}
		if n == 0 {
			return cut()
		}
		return nil
	})
	fmt.Printf("CUT-FAIL the power does not go after %d more writes: %v\n", n, err)
}

// follow calls f with the mask of each event of a directory and what is below it, as soon as there is one, until there is an error.
func follow(dir string, f func(mask uint32) error) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	for {
		if _, err := os.Stat(dir); err == nil { // the agent makes it
			break
		}
		pause()
	}
	if err := watchBelow(fd, dir); err != nil {
		return err
	}
	for buffer := make([]byte, 1<<16); ; {
		n, err := unix.Read(fd, buffer)
		if err != nil {
			return err
		}
		made := false
		for text := buffer[:n]; len(text) > 0; {
			mask := binary.NativeEndian.Uint32(text[4:])
			text = text[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(text[12:]):]
			made = made || mask&unix.IN_ISDIR != 0
			if err := f(mask); err != nil {
				return err
			}
		}
		if made {
			if err := watchBelow(fd, dir); err != nil {
				return err
			}
		}
	}
}

// watchBelow watches a directory and those below it.
func watchBelow(fd int, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_, err = unix.InotifyAddWatch(fd, path, unix.IN_MOVED_TO|unix.IN_CREATE|unix.IN_ONLYDIR)
		}
		if errors.Is(err, fs.ErrNotExist) { // it went meanwhile
			return nil
		}
		return err
	})
}

// recordedUpdate is the present update by the record itself.
type recordedUpdate struct {
	State string `json:"state"`
	Began string `json:"began"`
	Offer struct {
		Release struct {
			Version string `json:"version"`
		} `json:"release"`
	} `json:"offer"`
}

// recorded reads it; it is empty as long as there is none.
func recorded() recordedUpdate {
	var r struct {
		Current recordedUpdate `json:"current"`
	}
	text, err := os.ReadFile(record)
	if err != nil || json.Unmarshal(text, &r) != nil {
		return recordedUpdate{}
	}
	return r.Current
}
