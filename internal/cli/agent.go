package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"bailey/agent/config"
	"bailey/agent/inforce"
	"bailey/agent/keeper"
	"bailey/internal/asynclog"
	"bailey/internal/buildinfo"
	"bailey/internal/heaplimit"
	"bailey/internal/sdnotify"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// Agent is what `bailey agent` starts: a complete agent that runs until ctx is done.
type Agent func(ctx context.Context, o AgentOptions) error

// AgentOptions is what the command line found out for the agent.
type AgentOptions struct {
	Config *config.Config // checked, with the flags applied
	Log    *slog.Logger   // never waits for its reader
	Build  buildinfo.Info
	Args   []string // of the command line, without the program's name
	// Dropped counts the log lines that Log had to drop.
	Dropped func() uint64
	// Keeper holds what outlives the agent; nil when it runs alone.
	Keeper *keeper.Client
}

// agentFlags are the flags of `bailey agent` that change the configuration.
type agentFlags struct {
	config, state string
	watch         []string
	print         bool
	alone, kept   bool
}

func (a *app) agent() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent in the foreground",
		Long: `Run the agent in the foreground until SIGINT or SIGTERM; a second signal ends it at once. The
process that is started is the keeper: it starts the agent proper, answers when the agent
cannot, and starts it again (SIGHUP: even after it gave up). The log goes to stderr, as JSON
with --json. Flags and $BAILEY_RUN override the configuration file;
without --config that is ` + config.DefaultPath + `, which need not exist.`,
		Example: `  bailey agent
  bailey agent --print-config             # show the effective configuration
  bailey agent --state /tmp/s --run /tmp/r --watch /mnt/scratch
                                          # a second agent that only watches one mount point`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.load(cmd)
			if err != nil {
				return err
			}
			if f.print {
				return a.printConfig(cfg)
			}
			switch {
			case f.kept:
				return a.runKept(cmd.Context(), cfg)
			case f.alone:
				return a.runAlone(cmd.Context(), cfg)
			}
			return a.runKeeper(cmd.Context(), cfg)
		},
	}
	cmd.AddCommand(a.upgrade())
	cmd.Flags().StringVar(&f.config, "config", "", "configuration file (default "+config.DefaultPath+", if it exists)")
	cmd.Flags().StringVar(&f.state, "state", "", "directory of what must survive a reboot")
	cmd.Flags().StringArrayVar(&f.watch, "watch", nil, "only ask about this mount point; can be repeated")
	cmd.Flags().BoolVar(&f.alone, "alone", false, "without a keeper: when the agent ends, for whatever reason, everything is allowed")
	cmd.Flags().BoolVar(&f.kept, "kept", false, "internal: started by a keeper")
	_ = cmd.Flags().MarkHidden("kept")
	cmd.Flags().BoolVar(&f.print, "print-config", false, "print the effective configuration and exit")
	return cmd
}

// load reads the configuration and applies the flags and $BAILEY_RUN.
func (f *agentFlags) load(cmd *cobra.Command) (*config.Config, error) {
	cfg, err := config.Load(f.config)
	if err != nil {
		return nil, err
	}
	if f.state != "" {
		if cfg.Agent.State, err = filepath.Abs(f.state); err != nil {
			return nil, fmt.Errorf("find %s: %w", f.state, err)
		}
	}
	// The flag's default is $BAILEY_RUN; the built-in default yields to the file.
	if run := cmd.Flag("run"); run.Changed || run.DefValue != DefaultRun {
		if cfg.Agent.Run, err = filepath.Abs(run.Value.String()); err != nil {
			return nil, fmt.Errorf("find %s: %w", run.Value, err)
		}
	}
	for _, w := range f.watch {
		path, err := filepath.Abs(w)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", w, err)
		}
		if !slices.Contains(cfg.Watch.Paths, path) {
			cfg.Watch.Paths = append(cfg.Watch.Paths, path)
		}
	}
	if err := cfg.Check("command line"); err != nil {
		return nil, err
	}
	return cfg, nil
}

func (a *app) printConfig(cfg *config.Config) error {
	text, err := config.Print(cfg)
	if err != nil {
		return err
	}
	if a.json {
		var keys map[string]any // with the file's names
		if err := toml.Unmarshal(text, &keys); err != nil {
			return fmt.Errorf("read the configuration back: %w", err)
		}
		return a.printValue(keys)
	}
	_, err = a.Stdout.Write(text)
	return err
}

// flushPatience is how long the end of the agent waits for its log's reader.
const flushPatience = 2 * time.Second

// runAlone runs the agent in this process.
func (a *app) runAlone(ctx context.Context, cfg *config.Config) error {
	if err := a.able(); err != nil {
		return err
	}
	lock, err := lockState(cfg.Agent.State)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	return a.runAgent(ctx, cfg, nil)
}

// runKept runs the agent in this process as the child of a keeper, which has made all sure that can be made sure before.
func (a *app) runKept(ctx context.Context, cfg *config.Config) error {
	k, err := keeper.Connect()
	if err != nil {
		return &failure{ExitUsage, err.Error(), "start `bailey agent` without --kept"}
	}
	// At a shutdown everybody is sent the signal, by systemd and then by the keeper. The second is no reason to end at once: whoever does not end
	// in time, the keeper ends.
	again := make(chan os.Signal, 1)
	signal.Notify(again, unix.SIGTERM)
	defer signal.Stop(again)
	told := ctx.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over, heard := make(chan struct{}), make(chan struct{})
	defer func() { close(over); <-heard }() // the end of this program ends told too, and an agent that failed was not told to end
	go func() {
		defer close(heard)
		select {
		case <-over:
			if ctx.Err() != nil { // told, and quicker than this goroutine
				k.Ending()
			}
		case <-told:
			k.Ending()
		case <-k.Orphaned():
			// Nobody would answer if this agent failed now. It ends in order, and the service manager starts both again.
			cancel()
		}
	}()
	return a.runAgent(ctx, cfg, k)
}

// runKeeper runs the keeper in this process, and the agent below it.
func (a *app) runKeeper(ctx context.Context, cfg *config.Config) error {
	if err := a.able(); err != nil {
		return err
	}
	lock, err := lockState(cfg.Agent.State)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	log, done := a.asyncLog(cfg)
	defer done()
	manager := sdnotify.New(a.Getenv, os.Getpid())
	for _, v := range sdnotify.Variables() {
		_ = os.Unsetenv(v) // it fails only for names that cannot be
	}
	program, err := inforce.Choose(cfg.Agent.State, a.build().Version)
	if err != nil {
		log.Error("the agent's own update is not in force", "err", err)
	}
	k, err := keeper.New(keeper.Config{
		Args: append(slices.Clone(a.Args), "--kept"), Program: program, Run: cfg.Agent.Run, Deny: cfg.Keeper.Default == "deny", Log: log,
		KillAfter: cfg.Keeper.KillAfter.Duration, CrashLoop: cfg.Keeper.CrashLoop, BackoffMax: cfg.Keeper.BackoffMax.Duration,
		Signals: signals, Manager: manager,
	})
	if err != nil {
		return err
	}
	// The signals end it, one by one: a context would end it at the first.
	code, err := k.Run(context.WithoutCancel(ctx))
	if err == nil && code != 0 {
		err = silent(code) // the agent has said why
	}
	return err
}

func (a *app) able() error {
	if a.Agent == nil {
		return &failure{ExitFailed, "this program was built as a client, without an agent", "use the bailey of a release"}
	}
	return canAsk()
}

// asyncLog makes a log that never waits for its reader. From here on nothing else writes to stderr, not even the last error:
// a reader that stalled must not keep the agent.
func (a *app) asyncLog(cfg *config.Config) (log *slog.Logger, done func()) {
	// A reader of the log that goes away costs the log, not the agent.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, unix.SIGPIPE)
	w := asynclog.New(a.Stderr, 0)
	a.Stderr = w
	a.dropped = w.Dropped
	a.flush = func() {
		patience, cancel := context.WithTimeout(context.Background(), flushPatience)
		defer cancel()
		_ = w.Close(patience) // what is not read by then is lost, and nobody can be told
	}
	return slog.New(a.logHandler(w, cfg.Level())), func() { signal.Stop(pipe) }
}

func (a *app) runAgent(ctx context.Context, cfg *config.Config, k *keeper.Client) error {
	heaplimit.Keep()
	log, done := a.asyncLog(cfg)
	defer done()
	return a.Agent(ctx, AgentOptions{Config: cfg, Log: log, Build: a.build(), Args: a.Args, Dropped: a.dropped, Keeper: k})
}

func (a *app) logHandler(w *asynclog.Writer, level slog.Level) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if a.json {
		return slog.NewJSONHandler(w, o)
	}
	return slog.NewTextHandler(w, o)
}

// canAsk says in one sentence why this process cannot be the agent, if it cannot.
func canAsk() error {
	if os.Geteuid() != 0 {
		return &failure{ExitPermission, fmt.Sprintf("the agent needs root, and this is uid %d", os.Geteuid()), "run it as root, e.g. with sudo"}
	}
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_LARGEFILE)
	if err == nil {
		return unix.Close(fd) // without marks: it sees nothing and makes nobody wait
	}
	switch {
	case errors.Is(err, unix.EPERM):
		return &failure{ExitPermission, "the kernel refuses fanotify to this root (CAP_SYS_ADMIN is missing, e.g. in a container)", "run the agent on the host, or in a privileged container"}
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return &failure{ExitFailed, "this kernel has no fanotify permission events", "boot one that is built with CONFIG_FANOTIFY_ACCESS_PERMISSIONS, as those of all large distributions are"}
	case errors.Is(err, unix.EMFILE):
		return &failure{ExitFailed, "this user has as many fanotify groups as the kernel allows", "end one of the other users of fanotify, or raise fs.fanotify.max_user_groups"}
	}
	return fmt.Errorf("ask the kernel for fanotify: %w", err)
}

// lockState makes sure that no other agent works on the same state. The kernel gives the lock back when the agent dies. It
// is the directory that is locked: a disk that is full or read-only has no room for another file.
func lockState(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("create the state directory: %w", err)
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the state directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = &failure{ExitConflict, "another agent already works on the state in " + dir, "stop it, or give this one its own --state and --run"}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
