package cli

import (
	"fmt"
	"path/filepath"
	"time"

	"bailey/agent/keeper"
	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// upgradePatience is how long the new agent may take to serve once the old one hands over.
const upgradePatience = 30 * time.Second

func (a *app) upgrade() *cobra.Command {
	return &cobra.Command{
		Use:   "upgrade BINARY",
		Short: "Replace the running agent by another program, with nobody left waiting and no event lost",
		Long: `Replace the running agent by another bailey. The new one is started beside the old one; when it
is ready, the old one answers what it was asked and hands everything over: waiting questions,
sensors, products. If the new one cannot be started, the old one goes on. If it ends three times
within a minute, the keeper goes back to the one before. The keeper itself stays the old program
until the service is restarted; then the agent is the package's again, also where an update
(bailey/agent/code) had brought another.`,
		Example: "  bailey agent upgrade /usr/lib/bailey/bailey.new",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("find %s: %w", args[0], err)
			}
			status := func() (*controlv1.StatusResponse, error) {
				r, err := a.client().Status(cmd.Context(), connect.NewRequest(&controlv1.StatusRequest{}))
				if err != nil {
					return nil, err
				}
				return r.Msg, nil
			}
			before, err := status()
			if err != nil {
				return err
			}
			if _, err := a.client().AgentUpgrade(cmd.Context(), connect.NewRequest(&controlv1.AgentUpgradeRequest{Path: path})); err != nil {
				return err
			}
			for end := time.Now().Add(upgradePatience); time.Now().Before(end); {
				if now, err := status(); err == nil && now.GetPid() != before.GetPid() {
					if a.json {
						return a.printValue(map[string]any{"from": before.GetVersion(), "to": now.GetVersion(), "pid": now.GetPid()})
					}
					a.printf("%s is replaced by %s, pid %d\n", before.GetVersion(), now.GetVersion(), now.GetPid())
					return nil
				}
				select {
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				case <-time.After(20 * time.Millisecond):
				}
			}
			return &failure{ExitFailed, fmt.Sprintf("no new agent serves after %v", upgradePatience), "look at the agent's log and at `bailey status`"}
		},
	}
}

// keeperSays describes what a keeper without an agent does, empty when there is none.
func (a *app) keeperSays() (message, hint string) {
	s, err := keeper.ReadState(a.run)
	if err != nil || !alive(s.Keeper) {
		return "", ""
	}
	message = fmt.Sprintf("the agent is away and its keeper (pid %d) answers every question by default (%s", s.Keeper, s.State)
	if s.Reason != "" {
		message += ": " + s.Reason
	}
	message += ")"
	if s.State == keeper.Bypass {
		return message, fmt.Sprintf("find out why in its log, then `kill -HUP %d` or restart the service", s.Keeper)
	}
	return message, "try again in a moment"
}

// alive reports whether a process is there.
func alive(pid int) bool { return pid > 0 && unix.Kill(pid, 0) != unix.ESRCH }
