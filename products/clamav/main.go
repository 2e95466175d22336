// Program clamav is on-access scanning on Bailey: it has ClamAV's daemon look at every file before it runs, and before it is
// opened in the granted scope. Its decisions are in the package scan; this file only starts it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"bailey/products/clamav/scan"
	"bailey/sdk"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "clamav:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	p, err := scan.New(scan.Config{Questions: []sdk.Kind{sdk.Exec, sdk.Open}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	background, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(background) }()
	err = sdk.Run(ctx, p.SDK(background))
	end()
	return errors.Join(err, <-ended)
}
