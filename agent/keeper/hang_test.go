package keeper

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The roles that this test's program plays when it is started with one: a keeper, and agents that hang before they are ready, or when
// they are told to end, which the latter sees to itself. One keeper's first program is none.
const (
	keeperOfUnready = "keeper-of-unready"
	keeperOfDeaf    = "keeper-of-deaf"
	keeperOfBroken  = "keeper-of-broken"
	unready         = "unready"
	deaf            = "deaf"
)

// playRole returns when role is none.
func playRole(role string) {
	switch role {
	case keeperOfUnready:
		beKeeper(unready, "")
	case keeperOfDeaf:
		beKeeper(deaf, "")
	case keeperOfBroken:
		beKeeper(deaf, "/bin/false")
	case unready, deaf:
		signal.Ignore(unix.SIGTERM)
		c, err := Connect()
		if err == nil && role == deaf {
			if err = c.Ready(context.Background()); err == nil {
				err = unix.Kill(unix.Getppid(), unix.SIGTERM)
			}
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		select {}
	}
}

func beKeeper(agent, program string) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	cfg := Config{
		Args: []string{agent}, Program: program, Run: os.Getenv("KEEPER_RUN"), Log: slog.New(slog.NewTextHandler(os.Stdout, nil)), Signals: signals,
		EndPatience: 500 * time.Millisecond,
	}
	if agent == unready {
		cfg.StartPatience = 500 * time.Millisecond
	}
	k, err := New(cfg)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	code, err := k.Run(context.Background())
	fmt.Println("the keeper ends:", code, err)
	os.Exit(0)
}

// TestAgentsThatHang: one that is never ready is ended, and so is one that does not end; the keeper ends then. Where another program than its own gets no agent
// ready, its own does.
func TestAgentsThatHang(t *testing.T) {
	for role, want := range map[string]string{keeperOfUnready: "does not get ready", keeperOfDeaf: "was told to end and has not", keeperOfBroken: "back to the one before"} {
		t.Run(role, func(t *testing.T) {
			var out strings.Builder
			cmd := exec.Command(os.Args[0], role)
			cmd.Env = append(os.Environ(), "KEEPER_RUN="+t.TempDir())
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			limit := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
			defer limit.Stop()
			err := cmd.Wait()
			if role == keeperOfBroken && !strings.Contains(out.String(), "was told to end and has not") {
				t.Error("the keeper's own program was not started")
			}
			if err != nil || !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "the keeper ends: 137") {
				t.Errorf("%v\n%s", err, out.String())
			}
		})
	}
}
