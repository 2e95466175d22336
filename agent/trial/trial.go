// Package trial starts a release of the agent as a whole agent, alone, on this very kernel: on a state and run directory and a scratch filesystem of
// its own, which nobody else sees and which go with it. It says whether that agent serves, hears the kernel and ends; what it does with a machine's
// products it does not say.
//
// Guard and rules are off in it: what they leave in the kernel is not bound to a process, and a release that fails must leave nothing.
//
// Invariant: when Run returns, the agent and its filesystems are gone.
package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"bailey/internal/child"
	"bailey/internal/launch"
	"bailey/internal/tail"

	"golang.org/x/sys/unix"
)

// Config is what is tried.
type Config struct {
	Dir     string   // where its filesystems are mounted: made and removed here, the same for each trial, so that each clears up after the one before
	Program string   // an absolute path
	Version string   // that the agent must say of itself
	Args    []string // the machine's agent's; its configuration must be readable by the release
	Failed  []string // components that fail on this machine anyway
}

// patience bounds a trial.
const patience = 60 * time.Second

// Run tries the program. The error says what is wrong with it; log is the end of what it said.
func Run(ctx context.Context, c Config) (log string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	said := &tail.Buffer{}
	if err := readsConfiguration(ctx, c, said); err != nil {
		return said.String(), err
	}
	if err := os.Mkdir(c.Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make a directory for the trial: %w", err)
	}
	err = onThread(func() error { return inPrivate(ctx, c, said) })
	return said.String(), errors.Join(err, os.Remove(c.Dir)) // it is empty outside the trial
}

// onThread runs f on a thread that ends with it, and with the thread its view of the filesystems.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() { // the one thread that never ends, and that /proc shows for the process
			defer runtime.UnlockOSThread()
			done <- onThread(f)
			return
		}
		done <- f()
	}()
	return <-done
}

// readsConfiguration has the program read what this machine's agent is configured by.
func readsConfiguration(ctx context.Context, c Config, said *tail.Buffer) error {
	var args []string
	for _, a := range c.Args {
		if a != "--kept" && a != "--alone" {
			args = append(args, a)
		}
	}
	cmd := exec.CommandContext(ctx, c.Program, append(args, "--print-config")...)
	cmd.Stderr = said
	if err := launch.Run(cmd); err != nil {
		return fmt.Errorf("it does not read this machine's configuration: %w", err)
	}
	return nil
}

// inPrivate makes the calling thread's own view of the filesystems, and runs the trial in it.
func inPrivate(ctx context.Context, c Config, said *tail.Buffer) error {
	dir, scratch := c.Dir, filepath.Join(c.Dir, "scratch")
	err := unix.Unshare(unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err == nil {
		err = unix.Mount("bailey-trial", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0711,size=64m")
	}
	if err == nil {
		err = os.Mkdir(scratch, 0o755)
	}
	if err == nil {
		err = unix.Mount("bailey-trial", scratch, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0755,size=16m")
	}
	file := filepath.Join(dir, "agent.toml")
	if err == nil {
		err = os.WriteFile(file, []byte("[guard]\nenabled = \"off\"\n[rules]\nenabled = false\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("make a scratch filesystem for the trial: %w", err)
	}
	run := filepath.Join(dir, "run")
	cmd := exec.Command(c.Program, "agent", "--alone", "--config", file, "--state", filepath.Join(dir, "state"), "--run", run, "--watch", scratch)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LANG=C"} // not the service manager's socket
	// This thread stays until the trial is over: its end is what the signal tells of.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p, err := child.Start(cmd)
	if err != nil {
		return fmt.Errorf("start it: %w", err)
	}
	if err = try(ctx, p, c, run, scratch); err == nil {
		err = p.Stop(stopPatience)
	}
	_ = unix.Kill(-p.PID(), unix.SIGKILL) // whatever it left
	_ = p.Wait()                          // killed, if it was still there
	return err
}

// stopPatience is how long it may take to end.
const stopPatience = 15 * time.Second

// words is a list in one line.
func words(list []string) string { return strings.Join(list, "; ") }
