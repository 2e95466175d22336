package process_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/internal/leakcheck"
)

// helperVariable makes this test binary act as one of the programs that the tests watch.
const helperVariable = "BAILEY_PROCESS_TEST_HELPER"

func TestMain(m *testing.M) {
	switch name := os.Getenv(helperVariable); name {
	case "":
		leakcheck.Main(m)
	case "exec_same":
		fail(execSameWhenTold())
	case "exec_from_thread":
		fail(execFromThread())
	case "exit_from_threads":
		exitFromThreads()
	case "fork_when_told":
		fail(forkWhenTold())
	case "sleep":
		fmt.Println("ready")
		fail(unix.Pause())
	case "setuid":
		fail(setuidWhenTold())
	case "spawn":
		fail(spawnWhenTold())
	case "sense":
		fail(senseUntilKilled())
	case "pidns":
		os.Exit(m.Run()) // the same binary, in a new pid namespace: -test.run chooses
	default:
		fail(fmt.Errorf("no helper %q", name))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	os.Exit(0)
}

// sleeper is a shell's command for a program that is neither the shell nor one of its built-in ones (there are systems
// where all commands are one file), says so and sleeps.
func sleeper(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return "env " + helperVariable + "=sleep " + path
}

// helper returns a command that runs this test binary as a helper.
func helper(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), helperVariable+"="+name)
	return cmd
}

// execSameWhenTold executes the file that this program is from, once more.
func execSameWhenTold() error {
	fmt.Println("ready")
	bufio.NewScanner(os.Stdin).Scan()
	if err := os.Setenv(helperVariable, "sleep"); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", []string{"again"}, os.Environ())
}

// execFromThread executes /bin/true from a thread that is not the process's first.
func execFromThread() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		for unix.Gettid() == unix.Getpid() { // got the first thread: keep it busy and take another
			done := make(chan error)
			go func() {
				runtime.LockOSThread()
				done <- syscall.Exec("/bin/true", []string{"true", "from_thread"}, nil)
			}()
			result <- <-done
		}
		result <- syscall.Exec("/bin/true", []string{"true", "from_thread"}, nil)
	}()
	return <-result
}

// exitFromThreads ends the process by a call on one of many threads.
func exitFromThreads() {
	var ready sync.WaitGroup
	for range 16 {
		ready.Add(1)
		go func() {
			runtime.LockOSThread()
			ready.Done()
			select {}
		}()
	}
	ready.Wait()
	os.Exit(7)
}

// forkWhenTold starts a program for each line on standard input: its uid, ended by the program's arguments.
func forkWhenTold() error {
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		cmd := exec.Command("/bin/sleep", in.Text())
		if err := cmd.Start(); err != nil {
			return err
		}
		fmt.Println(cmd.Process.Pid)
		defer cmd.Wait() //nolint:errcheck // killed by the test
	}
	return nil
}

// setuidWhenTold changes its uid without an exec, then forks.
func setuidWhenTold() error {
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	uid, err := strconv.Atoi(in.Text())
	if err != nil {
		return err
	}
	if err := syscall.Setuid(uid); err != nil {
		return err
	}
	return exec.Command("/bin/true").Run()
}

// spawnWhenTold starts and waits for as many programs as each line on standard input says, with as little besides as Go
// allows, and prints the median of the nanoseconds that each took: what else the machine does falls on few of them.
func spawnWhenTold() error {
	attr := &syscall.ProcAttr{Env: []string{}}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n, err := strconv.Atoi(in.Text())
		if err != nil {
			return err
		}
		took := make([]time.Duration, n)
		for i := range took {
			begin := time.Now()
			pid, err := syscall.ForkExec("/bin/true", []string{"true"}, attr)
			if err != nil {
				return err
			}
			for {
				if _, err := syscall.Wait4(pid, nil, 0, nil); !errors.Is(err, syscall.EINTR) {
					break
				}
			}
			took[i] = time.Since(begin)
		}
		slices.Sort(took)
		fmt.Println(took[n/2].Nanoseconds())
	}
	return nil
}
