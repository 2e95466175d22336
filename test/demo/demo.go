package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	controlv1 "bailey/api/control/v1"
	"bailey/api/control/v1/client"
	"bailey/api/control/v1/controlv1connect"
	"bailey/test/started"
)

// demo is everything that was started, with what undoes it.
type demo struct {
	o     options
	agent *started.Program
	undos []func() error

	client controlv1connect.ControlServiceClient // of the agent, which may not run

	cgroups []string // of other agents, there before the demo
}

func (d *demo) later(f func() error) { d.undos = append(d.undos, f) }

// undo takes everything away, last first, and says what could not be.
func (d *demo) undo() error {
	var errs []error
	for _, f := range slices.Backward(d.undos) {
		errs = append(errs, f())
	}
	d.undos = nil
	return errors.Join(errs...)
}

func (d *demo) lockdown() string { return filepath.Join(d.o.dir, "lockdown") }
func (d *demo) runDir() string   { return filepath.Join(d.o.dir, "run") }

// bin is where the program is that the demo runs: not in a home or temporary directory, where opens are asked about. It is as critical as the agent, so that
// a scanner has a tenth of a second for it, and is late three times in a row where each start of it is three questions.
func (d *demo) bin() string    { return filepath.Join(d.o.dir, "bin") }
func (d *demo) bailey() string { return filepath.Join(d.bin(), "bailey") }

// start brings up the scratch directory, clamd, the agent and the products, in this order.
func (d *demo) start(ctx context.Context) error {
	for _, p := range []*string{&d.o.bailey, &d.o.products, &d.o.dir} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("find %s: %w", *p, err)
		}
		*p = abs
	}
	d.client = client.New(filepath.Join(d.runDir(), controlv1.SocketName))
	d.cgroups = cgroups()
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"make the demo's directory", d.makeDir}, {"mount the scratch directory", d.mountScratch}, {"start clamd", d.startClamd},
		{"start the agent", d.startAgent}, {"start the dead-man process", d.startDeadman}, {"install the products", d.installProducts},
	}
	for _, s := range steps {
		fmt.Println("run: " + s.what)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// makeDir makes the demo's directory, without what an earlier demo that was killed may have left.
func (d *demo) makeDir(context.Context) error {
	if out, err := exec.Command(d.o.bailey, "status", "--run", d.runDir()).CombinedOutput(); err == nil {
		return fmt.Errorf("another `make run` is still going on:\n%s", out)
	}
	for unix.Unmount(d.lockdown(), unix.MNT_DETACH) == nil {
	}
	if err := os.RemoveAll(d.o.dir); err != nil {
		return err
	}
	d.later(func() error { return os.RemoveAll(d.o.dir) })
	if err := os.MkdirAll(d.bin(), 0o755); err != nil {
		return err
	}
	program, err := os.ReadFile(d.o.bailey)
	if err != nil {
		return fmt.Errorf("copy the agent: %w", err)
	}
	return os.WriteFile(d.bailey(), program, 0o755)
}

func (d *demo) mountScratch(context.Context) error {
	if err := os.Mkdir(d.lockdown(), 0o755); err != nil {
		return err
	}
	if err := unix.Mount("bailey-demo", d.lockdown(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=64m"); err != nil {
		return err
	}
	d.later(func() error {
		if unix.Unmount(d.lockdown(), 0) == nil {
			return nil
		}
		return unix.Unmount(d.lockdown(), unix.MNT_DETACH) // a shell of the operator's is still in it
	})
	return nil
}

func (d *demo) startAgent(ctx context.Context) error {
	// Where opens may be asked about at all is the operator's to say: everywhere that it is by default, and in the demo's own.
	config := filepath.Join(d.o.dir, "agent.toml")
	text := fmt.Sprintf("[questions]\nopen_scope = [\"home\", \"temporary\", \"removable\", %q]\n", d.lockdown())
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	args := []string{"agent", "--config", config, "--state", filepath.Join(d.o.dir, "state"), "--run", d.runDir()}
	if d.o.scratchOnly {
		args = append(args, "--watch", d.lockdown())
	}
	c, err := startChild(filepath.Join(d.o.dir, "agent.log"), d.bailey(), args...)
	if err != nil {
		return err
	}
	d.agent = c
	d.later(func() error { return endChild(c, "the agent", 15*time.Second) })
	return c.Await(ctx, 30*time.Second, func() error { _, err := d.control(ctx, "status"); return err })
}

// installProducts installs both products, with settings for the scratch directory, and waits until they run.
func (d *demo) installProducts(ctx context.Context) error {
	allowlist := strings.NewReplacer(`lockdown_paths = ""`, fmt.Sprintf("lockdown_paths = %q", d.lockdown()+"/**"), "\nmode = \"\"", "\nmode = \"monitor\"")
	if err := d.install(ctx, "allowlist", allowlist); err != nil {
		return err
	}
	scope := strings.NewReplacer("open_scope = [", fmt.Sprintf("open_scope = [%q, ", d.lockdown()))
	if err := d.install(ctx, "clamav", scope); err != nil {
		return err
	}
	return d.agent.Await(ctx, settlePatience, func() error {
		_ = exec.Command("/bin/true").Run() // asks both; on a busy machine the allow list is late until it has read the package database
		for _, name := range []string{"allowlist", "clamav"} {
			p, err := d.product(ctx, name)
			switch {
			case err != nil:
				return err
			case p.GetAuthority() != "live":
				return fmt.Errorf("the answers of product %s do not count now: %s", name, p.GetAuthorityReason())
			case p.GetCounters().GetAnswers() == 0:
				return fmt.Errorf("product %s has answered nothing yet", name)
			}
		}
		return nil
	})
}

// settlePatience is how long products may take until they answer in time: one that was late is back after half a minute.
const settlePatience = 90 * time.Second

// product returns a product that runs; another state is an error. No program is started for it, which the products would be asked about.
func (d *demo) product(ctx context.Context, name string) (*controlv1.Product, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	reply, err := d.client.ProductShow(ctx, connect.NewRequest(&controlv1.ProductShowRequest{Name: name}))
	if err != nil {
		return nil, fmt.Errorf("look at product %s: %w", name, err)
	}
	p := reply.Msg.GetProduct()
	if p.GetState() != "running" || p.GetPid() == 0 {
		return nil, fmt.Errorf("product %s is %s: %s", name, p.GetState(), p.GetReason())
	}
	return p, nil
}

// install copies a product's folder, changes its manifest for the demo, and installs the copy.
func (d *demo) install(ctx context.Context, name string, change *strings.Replacer) error {
	folder := filepath.Join(d.o.dir, "products", name)
	if err := os.CopyFS(folder, os.DirFS(filepath.Join(d.o.products, name))); err != nil {
		return fmt.Errorf("copy product %s: %w", name, err)
	}
	manifest := filepath.Join(folder, "manifest.toml")
	text, err := os.ReadFile(manifest)
	if err != nil {
		return fmt.Errorf("read the manifest of %s: %w", name, err)
	}
	changed := change.Replace(string(text))
	if changed == string(text) {
		return fmt.Errorf("the manifest of %s has not the settings that the demo changes", name)
	}
	if err := os.WriteFile(manifest, []byte(changed), 0o644); err != nil {
		return fmt.Errorf("change the manifest of %s: %w", name, err)
	}
	_, err = d.control(ctx, "product", "install", folder, "--yes")
	return err
}

// control runs the command line against the demo's agent.
func (d *demo) control(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.bailey(), append(args, "--run", d.runDir())...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("bailey %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// show runs the live view in the terminal until the operator ends it.
func (d *demo) show(ctx context.Context) error {
	view := exec.Command(d.bailey(), "events", "verdict", "finding", "product", "health", "--run", d.runDir())
	view.Stdout, view.Stderr = os.Stdout, os.Stderr
	view.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := view.Start(); err != nil {
		return fmt.Errorf("start the live view: %w", err)
	}
	var result error
	ended := make(chan struct{})
	go func() {
		result = view.Wait()
		close(ended)
	}()
	select {
	case <-ctx.Done():
		_ = view.Process.Signal(syscall.SIGTERM)
		<-ended
		fmt.Println("\nrun: ending everything")
		return nil
	case <-d.agent.Done():
		_ = view.Process.Kill()
		<-ended
		return fmt.Errorf("the agent ended by itself:\n%s", d.agent.Output())
	case <-ended:
		return fmt.Errorf("the live view ended by itself: %w\n%s", orNone(result), d.agent.Output())
	}
}

// explain says what runs and what to try.
func (d *demo) explain(w io.Writer) {
	where := "this machine (allowlist only reports here: monitor mode)"
	if d.o.scratchOnly {
		where = "the scratch directory alone"
	}
	l := d.lockdown()
	fmt.Fprintf(w, `
The agent watches %s; %s is in lockdown.
Try this in a second terminal:

  export BAILEY_RUN=%s PATH=%s:$PATH
  # an unknown binary in lockdown: Operation not permitted
  cp /bin/ls %s/unknown && %s/unknown
  # what a scanner detects: Operation not permitted
  printf '%%s' '%s' > %s/eicar; cat %s/eicar
  # a killed product: only its restart count changes
  kill -9 $(pgrep -x allowlist); bailey product list
  # the state of everything
  bailey status

Ctrl-C ends everything and leaves nothing behind. What happens now:

`, where, l, d.runDir(), d.bin(), l, l, strings.ReplaceAll(eicar(), "'", `'\''`), l, l)
}
