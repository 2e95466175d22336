// Package probe is a hostile product: it tries what a product must not be able to do and says what came of it.
//
//	probe NAME ARGS…   one attempt; prints "ok: …" or the error
//	probe batch        runs every attempt of plan.json in its own process; writes results.json to its state directory
package probe

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

	"bailey/agent/product/contain"
)

// step is one line of plan.json.
type step struct {
	Row  string   `json:"row"`
	Args []string `json:"args"` // the attempt's name and its arguments
}

// Role runs what the program's name asks for, if it asks for anything: "probe" the hostile product, "helper" the agent's
// contain command.
func Role(args []string) (code int, ok bool) {
	switch filepath.Base(args[0]) {
	case "probe":
		return run(args), true
	case "helper":
		return contain.Main(contain.SpecFD), true
	}
	return 0, false
}

func run(args []string) int {
	if len(args) < 2 {
		fmt.Println("no attempt named")
		return 2
	}
	if args[1] == "batch" {
		if err := batch(); err != nil {
			fmt.Println(err)
			return 1
		}
		return 0
	}
	f, ok := attempts[args[1]]
	if !ok {
		fmt.Println("unknown attempt", args[1])
		return 2
	}
	out, err := f(args[2:])
	if err != nil {
		fmt.Println(err)
		return 0
	}
	fmt.Println("ok:", out)
	return 0
}

// self is this program with other arguments.
func self(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Args[0] = "probe"
	return cmd
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
	cmd := self("/proc/self/exe", args...)
	return cmd, cmd.Start()
}

func ignoreTerm() { signal.Ignore(syscall.SIGTERM) }
