// Command variant is the agent with a version and a fault of its own, which are the last line of its file: "VERSION FAULT". It is what the
// tests update an agent to. The faults are none, exit (no agent of it starts) and crash (it ends a second after it took over from another one).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"bailey/agent"
	"bailey/agent/keeper"
	"bailey/internal/cli"
)

func main() {
	version, fault, err := last()
	if err != nil {
		fmt.Fprintln(os.Stderr, "variant:", err)
		os.Exit(1)
	}
	os.Exit(cli.Main(cli.Process{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: version,
		Agent: func(ctx context.Context, o cli.AgentOptions) error { return run(ctx, o, fault) },
	}))
}

// last reads the last line of this program's file.
func last() (version, fault string, err error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", "", err
	}
	end := make([]byte, 64)
	if _, err := f.ReadAt(end, st.Size()-int64(len(end))); err != nil {
		return "", "", err
	}
	lines := strings.Split(strings.TrimSpace(string(end)), "\n")
	version, fault, found := strings.Cut(lines[len(lines)-1], " ")
	if !found {
		return "", "", errors.New("its file does not end with a version and a fault")
	}
	return version, fault, nil
}

func run(ctx context.Context, o cli.AgentOptions, fault string) error {
	switch {
	case fault == "exit":
		return errors.New("this agent never starts")
	case fault == "crash" && o.Keeper != nil:
		go crash(o.Config.Agent.Run)
	}
	a, err := agent.New(agent.Options{Config: o.Config, Log: o.Log, Build: o.Build, Args: o.Args, Dropped: o.Dropped, Parent: o.Keeper})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// crash ends this process a second after the keeper says that it is the one that answers.
func crash(dir string) {
	for {
		if s, err := keeper.ReadState(dir); err == nil && s.State == keeper.Serving && s.Agent == os.Getpid() {
			time.Sleep(time.Second)
			os.Exit(3)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
