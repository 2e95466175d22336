package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	productv1 "bailey/api/product/v1"

	controlv1 "bailey/api/control/v1"

	tea "charm.land/bubbletea/v2"
	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) top() *cobra.Command {
	var interval time.Duration
	var once bool
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the agent, its products and what they deny, live",
		Long: `Watch the agent live: how many questions are asked, how fast they are answered, what each product
does and costs, and the latest denies and findings. Numbers a second and latencies are of the last
interval. Keys: q quits, p pauses, s sorts by another column, ? helps. With --once one picture is
printed as text, after one interval.`,
		Example: "  bailey top\n  bailey top --interval 5s\n  bailey top --once",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case a.json:
				return errors.New("top is for eyes; `bailey status --json` and `bailey metrics` are for programs")
			case interval < 100*time.Millisecond || interval > time.Hour:
				return fmt.Errorf("--interval %s is out of range: use 100ms to 1h", interval)
			}
			return cobra.NoArgs(nil, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if once {
				return a.topOnce(cmd.Context(), interval)
			}
			if !isTerminal(a.Stdout) || !isTerminal(a.Stdin) {
				return &failure{ExitUsage, "top needs a terminal", "use `bailey top --once` to print one picture"}
			}
			return a.topLive(cmd.Context(), interval)
		},
	}
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "how often to look")
	cmd.Flags().BoolVar(&once, "once", false, "print one picture as text and end")
	return cmd
}

// topStatus is a look at the agent, or why there was none.
type topStatus struct {
	status *controlv1.StatusResponse
	at     time.Time
	err    error
}

// topEvent is a deny or a finding, and how many were dropped before it.
type topEvent struct {
	event *productv1.Event
	lost  uint64
}

// look asks the agent how it is. An agent that does not answer must not freeze the picture.
func (a *app) look(ctx context.Context) topStatus {
	patience, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := a.client().Status(patience, connect.NewRequest(&controlv1.StatusRequest{}))
	if err != nil {
		return topStatus{at: time.Now(), err: err}
	}
	return topStatus{status: r.Msg, at: time.Now()}
}

// listen gives each deny and finding to send until the stream or ctx ends.
func (a *app) listen(ctx context.Context, send func(topEvent)) error {
	s, err := a.client().Events(ctx, connect.NewRequest(&controlv1.EventsRequest{Kinds: []string{"verdict", "finding"}, Denied: true}))
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	for s.Receive() {
		if m := s.Msg(); m.GetEvent() != nil {
			send(topEvent{m.GetEvent(), m.GetLost()})
		}
	}
	return s.Err()
}

// topOnce prints one picture.
func (a *app) topOnce(ctx context.Context, interval time.Duration) error {
	m := newTopModel(a, interval)
	first := a.look(ctx)
	if first.err != nil {
		return first.err
	}
	m.took(first)
	hearing, stop := context.WithTimeout(ctx, interval)
	defer stop()
	// Its end is the interval's; what it said until then is all that is asked of it.
	_ = a.listen(hearing, m.heard)
	<-hearing.Done()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	second := a.look(ctx)
	if second.err != nil {
		return second.err
	}
	m.took(second)
	_, err := fmt.Fprint(a.Stdout, m.picture())
	return err
}

// topLive shows pictures until the operator has seen enough.
func (a *app) topLive(ctx context.Context, interval time.Duration) error {
	m := newTopModel(a, interval)
	live, stop := context.WithCancel(ctx)
	m.ctx = live
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(a.Stdin), tea.WithOutput(a.Stdout), tea.WithoutSignalHandler())
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		a.keepListening(live, interval, func(e topEvent) { p.Send(e) })
	}()
	_, err := p.Run()
	stop()
	<-heard
	if ctx.Err() != nil {
		return nil // the operator's interrupt is a normal end
	}
	return err
}

// keepListening listens again whenever the agent went away.
func (a *app) keepListening(ctx context.Context, interval time.Duration, send func(topEvent)) {
	for {
		// Why it ended is shown by the next look at the agent.
		_ = a.listen(ctx, send)
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval):
		}
	}
}

// awayText says in a line that there was no look at the agent.
func (a *app) awayText(err error) string {
	text := a.explain(err).message
	if text == "" {
		text = err.Error()
	}
	return strings.SplitN(plain(text), "\n", 2)[0]
}
