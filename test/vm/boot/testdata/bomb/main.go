// Command bomb enters a control group, as root can enter any, and takes memory until the kernel kills it or there is a gigabyte of it.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

const inside = "inside"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "bomb: want the directory of a control group")
		os.Exit(2)
	}
	if os.Args[1] == inside {
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0); err != nil { // whoever started it may be spared
			fmt.Fprintln(os.Stderr, "bomb:", err)
			os.Exit(1)
		}
		var taken [][]byte
		for range 1024 {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			taken = append(taken, b)
		}
		fmt.Println("nobody minded", len(taken), "MiB")
		return
	}
	group, err := os.Open(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bomb:", err)
		os.Exit(1)
	}
	cmd := exec.Command("/proc/self/exe", inside)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	fmt.Println(cmd.Run())
}
