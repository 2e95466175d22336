package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"bailey/agent/boot"
	"bailey/agent/config"
	"bailey/agent/product"

	"github.com/spf13/cobra"
)

// recoverFlags say what is to be changed; none: it is only shown.
type recoverFlags struct {
	state, product                string
	back, off, allOff, safe, good bool
}

// recovery is what recover prints with --json.
type recovery struct {
	State    string             `json:"state"` // the directory
	Done     []string           `json:"done"`  // what was changed now
	Boot     boot.Record        `json:"boot"`
	Problem  string             `json:"problem,omitempty"` // with the record of boots
	Products []recoveredProduct `json:"products"`
}

// recoveredProduct is one product's record.
type recoveredProduct struct {
	Name     string `json:"name"`
	Release  string `json:"release"`
	Previous string `json:"previous,omitempty"`
	Enabled  bool   `json:"enabled"`
	Problem  string `json:"problem,omitempty"` // its files cannot be read
}

func (a *app) recover() *cobra.Command {
	var f recoverFlags
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Repair a machine from a rescue shell, with no agent running",
		Long: `Show, and change, what the next start of the agent finds: how boots went, and which release of each product is started. It
works on the state directory itself, also of another machine's disk, and needs no agent, network or product; while an
agent works on that directory it refuses. Without a flag that changes something it only shows.`,
		Example: `  bailey recover                              # what there is
  bailey recover --product edr --back         # the release before, from the next start on
  bailey recover --product edr --off          # not started any more
  bailey recover --all-off
  bailey recover --safe                       # the next boot in safe mode: no product, nobody is asked
  bailey recover --good                       # forget unclean boots; the next boot is an ordinary one
  bailey recover --state /mnt/sysroot/var/lib/bailey --all-off`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return err
			}
			return f.check()
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runRecover(cmd.Context(), &f) },
	}
	cmd.Flags().StringVar(&f.state, "state", "", "state directory of the agent (default: the configuration's)")
	cmd.Flags().StringVar(&f.product, "product", "", "the product that --back or --off is about")
	cmd.Flags().BoolVar(&f.back, "back", false, "put the product's release before back")
	cmd.Flags().BoolVar(&f.off, "off", false, "have the product not started any more")
	cmd.Flags().BoolVar(&f.allOff, "all-off", false, "have no product started any more")
	cmd.Flags().BoolVar(&f.safe, "safe", false, "make the next boot one in safe mode")
	cmd.Flags().BoolVar(&f.good, "good", false, "forget the unclean boots")
	_ = cmd.RegisterFlagCompletionFunc("product", f.complete) // it cannot fail: the flag is there
	return cmd
}

func (f *recoverFlags) check() error {
	switch {
	case (f.back || f.off) != (f.product != ""):
		return errors.New("--product NAME goes together with --back or --off")
	case f.back && f.off:
		return errors.New("--back and --off exclude one another: a release that goes back is started")
	case f.safe && f.good:
		return errors.New("--safe and --good exclude one another")
	}
	return nil
}

// changes reports whether anything is to be changed.
func (f *recoverFlags) changes() bool { return f.back || f.off || f.allOff || f.safe || f.good }

// dir is the state directory.
func (f *recoverFlags) dir() (string, error) {
	if f.state != "" {
		return f.state, nil
	}
	cfg, err := config.Load("")
	if err != nil {
		return "", err
	}
	return cfg.Agent.State, nil
}

// complete completes names of the products that are there.
func (f *recoverFlags) complete(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if dir, err := f.dir(); err == nil {
		if m, err := product.Offline(dir); err == nil {
			for _, v := range m.List() {
				names = append(names, v.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) runRecover(ctx context.Context, f *recoverFlags) error {
	dir, err := f.dir()
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err != nil {
		return &failure{ExitNotFound, "there is no state directory: " + err.Error(), "name it with --state, e.g. below the mount point of the machine's disk"}
	}
	lock, err := lockState(dir)
	var busy *failure
	switch {
	case errors.As(err, &busy):
		return &failure{ExitConflict, "an agent works on the state in " + dir, "use `bailey boot`, `bailey product stop` and `bailey update rollback` with it, or boot without it"}
	case err != nil:
		return err
	}
	defer func() { _ = lock.Close() }()
	m, err := product.Offline(dir)
	if err != nil {
		return err
	}
	done, err := f.change(ctx, dir, m)
	if err != nil {
		return err
	}
	r := recovered(dir, m)
	r.Done = done
	if a.json {
		return a.printValue(r)
	}
	a.printRecovery(r, f.changes())
	return nil
}

// change does what the flags say.
func (f *recoverFlags) change(ctx context.Context, dir string, m *product.Manager) (done []string, err error) {
	done = []string{}
	if f.product != "" {
		if _, err := m.Show(f.product); err != nil {
			return nil, &failure{ExitNotFound, err.Error(), "see `bailey recover`"}
		}
	}
	if f.back {
		said, err := goBack(ctx, m, f.product)
		if err != nil {
			return nil, err
		}
		done = append(done, said)
	}
	for _, v := range m.List() {
		if !v.Enabled || !(f.allOff && v.Manifest != nil) && !(f.off && v.Name == f.product) {
			continue
		}
		if _, err := m.Stop(ctx, v.Name); err != nil {
			return nil, err
		}
		done = append(done, v.Name+" is off")
	}
	said, err := f.changeBoot(dir)
	return append(done, said...), err
}

func goBack(ctx context.Context, m *product.Manager, name string) (string, error) {
	before, err := m.Show(name)
	if err != nil {
		return "", err
	}
	after, err := m.GoBack(ctx, name, before.Release)
	if errors.Is(err, product.ErrFirst) {
		return "", &failure{ExitConflict, name + ": " + product.ErrFirst.Error(), "switch it off: `bailey recover --product " + name + " --off`"}
	}
	return fmt.Sprintf("%s goes back from %s to %s", name, before.Release, after.Release), err
}

// changeBoot edits the record of boots. One that is damaged makes room.
func (f *recoverFlags) changeBoot(dir string) ([]string, error) {
	if !f.safe && !f.good {
		return nil, nil
	}
	r, err := boot.Read(dir)
	if err != nil && !errors.Is(err, boot.ErrDamaged) {
		return nil, err
	}
	said := "the next boot is in safe mode"
	r.Next = true
	if f.good {
		r.Forget()
		said = "no unclean boot is remembered"
	}
	return []string{said}, boot.Write(dir, r)
}

// recovered is what there is.
func recovered(dir string, m *product.Manager) recovery {
	r := recovery{State: dir, Products: []recoveredProduct{}}
	if abs, err := filepath.Abs(dir); err == nil {
		r.State = abs
	}
	var err error
	if r.Boot, err = boot.Read(dir); err != nil {
		r.Problem = err.Error()
	}
	for _, v := range m.List() {
		p := recoveredProduct{Name: v.Name, Release: v.Release, Previous: v.Previous, Enabled: v.Enabled}
		if v.Manifest == nil {
			p.Problem = v.Status.Reason
		}
		r.Products = append(r.Products, p)
	}
	return r
}

func (a *app) printRecovery(r recovery, changed bool) {
	for _, d := range r.Done {
		a.printf("%s\n", plain(d))
	}
	if changed {
		if len(r.Done) == 0 {
			a.printf("nothing was to be changed\n")
		}
		a.printf("\n")
	}
	var t table
	t.row("state", r.State)
	b := &r.Boot
	switch {
	case r.Problem != "":
		t.row("boots", "not known: "+plain(r.Problem))
	case b.Boot == "":
		t.row("boots", "none is remembered")
	default:
		t.row("last boot", fmt.Sprintf("%s, %s", b.Began.Local().Format(time.RFC3339), endText(b)))
		t.row("unclean", fmt.Sprintf("%s in a row before it", plural(b.Unclean, "boot", "boots")))
	}
	if b.Safe != "" {
		t.row("safe mode", plain(b.Safe))
	}
	if why := b.SensorsOff(); why != "" {
		t.row("sensors off", plain(why))
	}
	if b.Next {
		t.row("next boot", "in safe mode")
	}
	for _, back := range b.Back {
		t.row("went back", plain(fmt.Sprintf("%s from %s to %s", back.Product, back.From, back.To)))
	}
	if len(b.LastGood) > 0 {
		t.row("last good", plain(releasesText(b.LastGood)))
	}
	t.print(a.Stdout, "")
	a.printf("\n")
	if len(r.Products) == 0 {
		a.printf("no product is installed\n")
		return
	}
	t = table{}
	t.row("NAME", "RELEASE", "BEFORE", "STARTED", "")
	for _, p := range r.Products {
		started := "yes"
		if !p.Enabled {
			started = "no"
		}
		t.row(p.Name, dash(plain(p.Release)), dash(plain(p.Previous)), started, plain(p.Problem))
	}
	t.print(a.Stdout, "")
}

// endText says how a boot went.
func endText(r *boot.Record) string {
	switch {
	case r.Ended:
		return "ended in order"
	case r.Good:
		return "good"
	}
	return "not good, and not ended in order"
}
