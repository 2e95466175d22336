// Command probe is a hostile product: it tries what a product must not be able to do and says what came of it.
//
//	probe NAME ARGS…   one attempt; prints "ok: …" or the error
//	probe batch        runs every attempt of plan.json in its own process; writes results.json to its state directory
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// step is one line of plan.json.
type step struct {
	Row  string   `json:"row"`
	Args []string `json:"args"` // the attempt's name and its arguments
}

func main() {
	if len(os.Args) < 2 {
		fmt.Println("no attempt named")
		os.Exit(2)
	}
	if os.Args[1] == "batch" {
		if err := batch(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	f, ok := attempts[os.Args[1]]
	if !ok {
		fmt.Println("unknown attempt", os.Args[1])
		os.Exit(2)
	}
	out, err := f(os.Args[2:])
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ok:", out)
}

func batch() error {
	b, err := os.ReadFile("plan.json")
	if err != nil {
		return err
	}
	var plan []step
	if err := json.Unmarshal(b, &plan); err != nil {
		return err
	}
	results := make(map[string]string)
	for _, s := range plan {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		cmd := exec.CommandContext(ctx, "/product/probe", s.Args...)
		out, err := cmd.CombinedOutput()
		cancel()
		results[s.Row] = strings.TrimSpace(string(out))
		if err != nil {
			results[s.Row] += " [" + err.Error() + "]"
		}
	}
	b, err = json.Marshal(results)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(os.Getenv("STATE_DIRECTORY"), "results.json"), b, 0o600)
}

// spawn starts this program again, running another attempt.
func spawn(args ...string) (*exec.Cmd, error) {
	cmd := exec.Command("/proc/self/exe", args...)
	return cmd, cmd.Start()
}

func ignoreTerm() { signal.Ignore(syscall.SIGTERM) }
