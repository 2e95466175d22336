package keeper

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The roles that this test's program plays when it is started with one: a keeper, and agents that hang before they are ready, or when
// they are told to end.
const (
	keeperOfUnready = "keeper-of-unready"
	keeperOfDeaf    = "keeper-of-deaf"
	unready         = "unready"
	deaf            = "deaf"
)

// playRole returns when role is none.
func playRole(role string) {
	switch role {
	case keeperOfUnready:
		beKeeper(unready)
	case keeperOfDeaf:
		beKeeper(deaf)
	case unready, deaf:
		signal.Ignore(unix.SIGTERM)
		c, err := Connect()
		if err == nil && role == deaf {
			err = c.Ready(context.Background())
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		select {}
	}
}

func beKeeper(agent string) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	k, err := New(Config{
		Args: []string{agent}, Run: os.Getenv("KEEPER_RUN"), Log: slog.New(slog.NewTextHandler(os.Stdout, nil)), Signals: signals,
		StartPatience: 500 * time.Millisecond, EndPatience: 500 * time.Millisecond,
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	code, err := k.Run(context.Background())
	fmt.Println("the keeper ends:", code, err)
	os.Exit(0)
}

// TestAgentsThatHang: one that is never ready is ended, and so is one that does not end; the keeper ends then.
func TestAgentsThatHang(t *testing.T) {
	for role, want := range map[string]string{keeperOfUnready: "does not get ready", keeperOfDeaf: "was told to end and has not"} {
		t.Run(role, func(t *testing.T) {
			var out strings.Builder
			cmd := exec.Command(os.Args[0], role)
			cmd.Env = append(os.Environ(), "KEEPER_RUN="+t.TempDir())
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if role == keeperOfDeaf {
				stop := time.AfterFunc(time.Second, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
				defer stop.Stop()
			}
			limit := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
			defer limit.Stop()
			err := cmd.Wait()
			if err != nil || !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "the keeper ends: 137") {
				t.Errorf("%v\n%s", err, out.String())
			}
		})
	}
}
