package probe

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// writeLarge writes a file of a[1] MiB.
func writeLarge(a []string) (string, error) {
	signal.Ignore(syscall.SIGXFSZ)
	n, _ := strconv.Atoi(a[1])
	f, err := os.Create(filepath.Join(a[0], "large"))
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	b := make([]byte, 1<<20)
	for i := range n {
		if _, err := f.Write(b); err != nil {
			return "", fmt.Errorf("after %d MiB: %w", i, err)
		}
	}
	return "written", nil
}

func fillTmp(a []string) (string, error) { return writeLarge([]string{"/tmp", a[0]}) }

func manyFiles(a []string) (string, error) {
	n, _ := strconv.Atoi(a[0])
	for i := range n {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err != nil {
			return "", fmt.Errorf("after %d: %w", i, err)
		}
	}
	return "opened", nil
}

func manyProcs(a []string) (string, error) {
	n, _ := strconv.Atoi(a[0])
	for i := range n {
		cmd, err := spawn("sleep")
		if err != nil {
			return "", fmt.Errorf("after %d: %w", i, err)
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	}
	return "started", nil
}

// eatMemory touches a[0] MiB and keeps them.
func eatMemory(a []string) (string, error) {
	n, _ := strconv.Atoi(a[0])
	var keep [][]byte
	for range n {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		keep = append(keep, b)
	}
	return fmt.Sprintf("%d MiB touched", len(keep)), nil
}

// spin keeps two threads busy for a[0] milliseconds.
func spin(a []string) (string, error) {
	n, _ := strconv.Atoi(a[0])
	end := time.Now().Add(time.Duration(n) * time.Millisecond)
	finished := make(chan uint64)
	for range 2 {
		go func() {
			var x uint64
			for time.Now().Before(end) {
				x++
			}
			finished <- x
		}()
	}
	return fmt.Sprint(<-finished + <-finished), nil
}

func forkBomb([]string) (string, error) {
	for {
		if _, err := spawn("fork_bomb"); err != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// flood writes a[0] MiB of lines to stdout and then waits.
func flood(a []string) (string, error) {
	n, _ := strconv.Atoi(a[0])
	line := make([]byte, 1024)
	for i := range line {
		line[i] = 'x'
	}
	line[len(line)-1] = '\n'
	for range n << 10 {
		if _, err := os.Stdout.Write(line); err != nil {
			return "", err
		}
	}
	time.Sleep(time.Hour)
	return "", nil
}

// growState writes files of 1 MiB to the state directory until it cannot, then waits.
func growState([]string) (string, error) {
	b := make([]byte, 1<<20)
	for i := range 64 {
		if err := os.WriteFile(filepath.Join(os.Getenv("STATE_DIRECTORY"), fmt.Sprint("f", i)), b, 0o600); err != nil {
			fmt.Println("state:", err)
			break
		}
	}
	time.Sleep(time.Hour)
	return "", nil
}

// receive takes one descriptor from the socket, reads it, and then tries to open the same file again.
func receive([]string) (string, error) {
	oob := make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(3, buf[:], oob, 0)
	if err != nil {
		return "", err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return "", fmt.Errorf("%d control messages: %w", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return "", err
	}
	k, err := unix.Pread(fds[0], buf[:], 0)
	if err != nil {
		return "", err
	}
	report := fmt.Sprintf("content=%s", buf[:k])
	for name, how := range map[string]int{"reopen_read": unix.O_RDONLY, "reopen_write": unix.O_WRONLY} {
		_, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fds[0]), how, 0)
		report += fmt.Sprintf("\n%s=%v", name, err)
	}
	_, err = unix.Write(3, []byte(report))
	return "", err
}
