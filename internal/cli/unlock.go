package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"bailey/agent/unlock/token"
	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) unlock() *cobra.Command {
	var text, file string
	var check []string
	cmd := &cobra.Command{
		Use:   "unlock",
		Short: "Unlock the guard with an operator's token",
		Long: `Unlock the guard for what the token allows, until it expires or "bailey lock" is run. A token counts
once; a second one replaces what the first allowed. Without --token and --token-file it is read
from stdin.`,
		Example: `  bailey unlock --token baileytoken1aaaaaa…
  bailey operator sign --key alice.key --host-id 425e… --scope stop | ssh db1 sudo bailey unlock
  bailey unlock --token-file /media/usb/token
  bailey unlock --check upgrade           # only ask: exit code 0 when that is allowed, 7 when it is not`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if set := countSet(cmd, "token", "token-file", "check"); set > 1 {
				return &failure{ExitUsage, "--token, --token-file and --check exclude one another", "give one of them"}
			}
			if len(check) > 0 {
				return a.checkUnlocked(cmd.Context(), check)
			}
			t, err := a.readToken(text, file)
			if err != nil {
				return err
			}
			r, err := a.client().Unlock(cmd.Context(), connect.NewRequest(&controlv1.UnlockRequest{Token: t}))
			return done(a, r, err, func(m *controlv1.UnlockResponse) string { return "the guard is " + lockText(m.GetGuard()) })
		},
	}
	cmd.Flags().StringVar(&text, "token", "", "the token")
	cmd.Flags().StringVar(&file, "token-file", "", "a file that holds it")
	cmd.Flags().StringSliceVar(&check, "check", nil, "use no token, and only say whether the guard allows these scopes now")
	return cmd
}

// countSet returns how many of the flags were given.
func countSet(cmd *cobra.Command, flags ...string) int {
	n := 0
	for _, f := range flags {
		if cmd.Flag(f).Changed {
			n++
		}
	}
	return n
}

// checkUnlocked says whether the guard lets the scopes be done. Without a guard nothing is refused.
func (a *app) checkUnlocked(ctx context.Context, scopes []string) error {
	if _, err := token.ParseScopes(scopes); err != nil {
		return &failure{ExitUsage, err.Error(), "see `bailey operator sign --help`"}
	}
	r, err := a.client().Status(ctx, connect.NewRequest(&controlv1.StatusRequest{}))
	if err != nil {
		return err
	}
	g := r.Msg.GetGuard()
	if a.json {
		if err := a.printJSON(&controlv1.UnlockResponse{Guard: g}); err != nil {
			return err
		}
	}
	if !g.GetActive() {
		if !a.json {
			a.printf("allowed: no guard is active (%s)\n", plain(g.GetReason()))
		}
		return nil
	}
	for _, s := range scopes {
		if g.GetLocked() || !slices.Contains(g.GetScopes(), s) {
			return &failure{ExitConflict, "the guard is " + lockText(g) + ", so not for " + s, "unlock it with a token of that scope: `bailey unlock --help`"}
		}
	}
	if !a.json {
		a.printf("allowed: the guard is %s\n", lockText(g))
	}
	return nil
}

// maxTokenText bounds what is read for a token.
const maxTokenText = 16 << 10

// readToken gets the token from where the command line says.
func (a *app) readToken(text, file string) (string, error) {
	var err error
	switch {
	case text != "":
	case file != "":
		text, err = tokenFile(file)
	case isTerminal(a.Stdin):
		fmt.Fprint(a.Stderr, "Token: ")
		s := bufio.NewScanner(a.Stdin)
		s.Scan()
		text, err = s.Text(), s.Err()
	default:
		text, err = readBounded(a.Stdin)
	}
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	if text = token.Clean(text); text == "" {
		return "", &failure{ExitUsage, "there is no token", "give the one word that `bailey operator sign` printed, with --token or on stdin"}
	}
	return text, nil
}

func tokenFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return readBounded(f)
}

func readBounded(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxTokenText))
	return string(text), err
}

func (a *app) lock() *cobra.Command {
	return &cobra.Command{
		Use:     "lock",
		Short:   "Lock the guard again before a token expires",
		Example: "  bailey lock",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.client().Lock(cmd.Context(), connect.NewRequest(&controlv1.LockRequest{}))
			return done(a, r, err, func(m *controlv1.LockResponse) string { return "the guard is " + lockText(m.GetGuard()) })
		},
	}
}

// guardLine says in status what the guard is.
func guardLine(g *controlv1.Guard) string {
	switch {
	case g == nil:
		return "this agent does not say: it is older than this command"
	case !g.GetActive():
		return "not active (" + plain(g.GetReason()) + "): root can stop and change the agent"
	}
	return lockText(g)
}

func lockText(g *controlv1.Guard) string {
	switch {
	case g.GetLocked():
		return "locked"
	case g.GetKey() == "":
		return "not locked"
	}
	by := "key " + g.GetKey()
	if g.GetOperator() != "" {
		by = plain(g.GetOperator()) + " (" + by + ")"
	}
	return fmt.Sprintf("unlocked for %s until %s by %s", strings.Join(g.GetScopes(), ", "), time.Unix(0, g.GetExpires()).Format(time.RFC3339), by)
}
