// Program allowlist is application control on Bailey: it decides which programs may run, by the package that owns them,
// their digest, their path and who runs them. Its decisions are in the package decide; this file only starts it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"

	"bailey/products/allowlist/decide"
	"bailey/sdk"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "allowlist:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	d, err := decide.New(decide.Config{State: os.Getenv("STATE_DIRECTORY"), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	questions := []sdk.Kind{sdk.Exec}
	if strings.Contains(" "+strings.Join(os.Args[1:], " ")+" ", " open ") {
		questions = append(questions, sdk.Open)
	}
	background, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(background) }()
	err = sdk.Run(ctx, d.Product(questions...))
	end()
	return errors.Join(err, <-ended)
}
