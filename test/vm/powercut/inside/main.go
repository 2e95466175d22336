// Command inside is the operator of a machine that loses its power (test/vm/powercut): it starts the agent, checks what the last power cut left,
// and then has one release after another come in, until the power goes. It runs on the kernel's word alone, with nothing of this package's host
// but the files beside it.
//
// Invariant: it repairs nothing. What is not in order within a while is said in a line that begins with CUT-FAIL.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"bailey/internal/durable"
	"bailey/test/rig"

	"golang.org/x/sys/unix"
)

// Where things are in the machine.
const (
	data    = "/data" // the disk
	state   = data + "/state"
	step    = data + "/step" // the newest release that was offered
	repo    = "/srv/repo"    // what is offered
	here    = "/tests/cut"
	scratch = "/scratch" // what the agent watches
	stream  = "acme/engine/content"
	record  = state + "/update/streams/acme--engine--content.json"
)

// patience is how long what must come to be may take; on a quiet host it takes a tenth.
const patience = 2 * time.Minute

func main() {
	if err := run(); err != nil {
		fmt.Printf("CUT-FAIL %v\n", err)
		text, _ := os.ReadFile("/run/agent.log")
		fmt.Printf("the agent said:\n%s\n", text)
		os.Exit(1)
	}
}

func run() error {
	m := &machine{}
	if err := m.prepare(); err != nil {
		return err
	}
	if at := wanted("cut.at"); at != "" {
		go cutAtState(at)
	}
	if n, err := strconv.Atoi(wanted("cut.write")); err == nil {
		go cutAtWrite(n)
	}
	go use()
	if err := m.startAgent(); err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return err
	}
	return m.drive()
}

// machine is what is known of it.
type machine struct {
	step int // the newest release that is offered
	last int // that there is
}

// prepare mounts the disk and offers what was offered before.
func (m *machine) prepare() error {
	for _, d := range []string{data, scratch, "/srv", "/run/bailey"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("/dev/vda", data, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount the disk: %w", err)
	}
	if err := unix.Mount("scratch", scratch, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount the scratch file system: %w", err)
	}
	text, err := os.ReadFile(step)
	if err == nil {
		_, err = fmt.Sscan(string(text), &m.step)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read which release is offered: %w", err)
	}
	repos, err := os.ReadDir(filepath.Join(here, "repos"))
	if err != nil {
		return err
	}
	m.last = len(repos) - 1
	for n := range m.last + 1 {
		if err := os.WriteFile(trigger(strconv.Itoa(n)), rig.TinyProgram(fmt.Sprint(n)), 0o755); err != nil {
			return err
		}
	}
	return m.offer()
}

// trigger is the program at which the content of a version crashes, if it is one that does so late.
func trigger(version string) string { return scratch + "/late-" + version }

// offer has the repository offer what it did in step; that is on the disk first, so that no later boot offers less.
func (m *machine) offer() error {
	if err := durable.Replace(step, fmt.Append(nil, m.step), 0o644); err != nil {
		return err
	}
	next := repo + ".new"
	_ = os.Remove(next) // it need not be there
	return errors.Join(os.Symlink(fmt.Sprintf("%s/repos/%d", here, m.step), next), os.Rename(next, repo))
}

func (m *machine) startAgent() error {
	log, err := os.Create("/run/agent.log")
	if err != nil {
		return err
	}
	cmd := exec.Command(here+"/bailey", "agent", "--config", here+"/agent.toml", "--state", state, "--run", "/run/bailey", "--watch", scratch)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	return eventually("the agent serves", func() error { _, err := bailey("status"); return err })
}

// bailey runs a command of the operator's.
func bailey(args ...string) (string, error) {
	out, err := exec.Command(here+"/bailey", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("bailey %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// ask runs a command and reads the JSON that it prints.
func ask(into any, args ...string) error {
	out, err := bailey(append(args, "--json")...)
	if err == nil {
		err = json.Unmarshal([]byte(out), into)
	}
	return err
}

// eventually polls until f returns nil.
func eventually(what string, f func() error) error {
	for end := time.Now().Add(patience); ; {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: not within %v: %w", what, patience, err)
		}
		pause()
	}
}

func pause() { <-time.After(50 * time.Millisecond) }
