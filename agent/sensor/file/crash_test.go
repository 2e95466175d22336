package file

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/internal/roottest"
)

// envHolder makes this binary a sensor on the directory it names that answers nothing, until it dies in the way that its
// standard input says.
const envHolder = "BAILEY_FILE_TEST_HOLDER"

func holdForEver(dir string) {
	procs := &testProcesses{own: uint32(os.Getpid())}
	asked := make(chan struct{}, 4096)
	s, err := New(Config{Watch: []string{dir}, Processes: procs, Identity: procs, Emit: func(*event.Event) {},
		Ask: func(*event.Question) { asked <- struct{}{} }})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() { _ = s.Run(context.Background()) }()
	<-s.Ready()
	s.SetOpenScope([]string{dir})
	s.SetQuestions(true, true)
	fmt.Println("ready")
	for range 200 {
		<-asked
	}
	fmt.Println("holding")
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	switch line {
	case "panic\n":
		panic("as told")
	case "exit\n":
		os.Exit(3)
	}
	select {}
}

// F5 in part: whatever ends the process, the kernel lets its waiters go.
func TestDeathLetsWaitersGo(t *testing.T) {
	roottest.Require(t, "fanotify permission marks need CAP_SYS_ADMIN")
	for _, how := range []string{"panic", "exit", "kill"} {
		t.Run(how, func(t *testing.T) {
			dir := scratch(t)
			if err := os.WriteFile(dir+"/f", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			sub := startSubject(t)
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{envHolder + "=" + dir}
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			if !lines.Scan() || lines.Text() != "ready" {
				t.Fatalf("the sensor did not start: %q", lines.Text())
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				sub.do("openpar", dir+"/f", "200")
			}()
			if !lines.Scan() || lines.Text() != "holding" {
				t.Fatalf("the sensor does not hold: %q", lines.Text())
			}
			start := time.Now()
			if how == "kill" {
				err = cmd.Process.Signal(unix.SIGKILL)
			} else {
				_, err = fmt.Fprintln(in, how)
			}
			if err != nil {
				t.Fatal(err)
			}
			<-done
			t.Logf("200 waiters went on after %v", time.Since(start))
			_ = cmd.Wait()
		})
	}
}
