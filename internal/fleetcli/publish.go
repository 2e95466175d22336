package fleetcli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"bailey/internal/command"
	"bailey/update/bundle"
	"bailey/update/publish"
	"bailey/update/release"

	"github.com/spf13/cobra"
)

func (a *app) pack() *cobra.Command {
	var about, out string
	cmd := &cobra.Command{
		Use:   "pack DIRECTORY",
		Short: "Make a bundle of a release's files",
		Long: `Make a bundle of all files in a directory, and of a description in JSON: docs/updates.md lists its names. The same files make the
same bundle.`,
		Example: "  bailey-fleet repo pack ./rules --description rules.json --out rules.tar.zst",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if about == "" || out == "" {
				return &failure{ExitUsage, "a bundle needs a description and a file", "name them with --description and --out"}
			}
			return a.makeBundle(args[0], about, out)
		},
	}
	cmd.Flags().StringVar(&about, "description", "", "file with the release's description")
	cmd.Flags().StringVar(&out, "out", "", "file for the bundle")
	return cmd
}

func (a *app) makeBundle(dir, about, out string) error {
	text, err := os.ReadFile(about)
	if err != nil {
		return err
	}
	d, err := release.Parse(text)
	if err != nil {
		return fmt.Errorf("read %s: %w", about, err)
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	m, err := bundle.Pack(f, dir, d, bundle.Limits{})
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(out))
	}
	return a.print(map[string]any{"stream": d.Stream().String(), "version": d.Version, "files": len(m.Files), "bundle": out}, func() {
		a.printf("%s holds %s %s, %d files\n", out, d.Stream(), d.Version, len(m.Files))
	})
}

func (a *app) publish() *cobra.Command {
	p := &place{a: a}
	cmd := &cobra.Command{
		Use:   "publish BUNDLE...",
		Short: "Add releases to their streams",
		Long: `Add bundles to the streams that their manifests name, signed with the streams' keys. They are shown at once if the snapshot's and
the timestamp's keys are at hand, and otherwise with the next "renew". A stream has at most 47 releases: the oldest go first, but none
that the newest can be rolled back to.`,
		Example: "  bailey-fleet repo publish rules.tar.zst --key acme.key --dir ./repo --keys ./online --root root.json",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			done, shown := []publish.Published{}, false
			err := p.change(func(r *publish.Repository, signers []publish.Signer) error {
				for _, file := range args {
					one, err := r.Release(cmd.Context(), file, signers)
					if err != nil {
						return err
					}
					done = append(done, one)
				}
				if shown = r.CanAnnounce(signers); shown {
					return r.Announce(cmd.Context(), signers)
				}
				return nil
			})
			if err != nil {
				return err
			}
			return a.print(map[string]any{"published": done, "announced": shown}, func() {
				for _, one := range done {
					a.printf("%s  %s\n", one.SHA256, one.Path)
				}
				if !shown {
					a.note("machines will see it after `bailey-fleet repo renew` with the keys of the snapshot and the timestamp")
				}
			})
		},
	}
	p.flags(cmd)
	return cmd
}

func (a *app) policy() *cobra.Command {
	return command.Group(&cobra.Command{
		Use:     "policy",
		Short:   "Disable releases on all machines, also on those in safe mode",
		Example: "  bailey-fleet repo policy disable acme/edr/content 2026.11.22.1 --reason 'crashes its parser' --dir ./repo --keys ./keys",
	}, a.policyShow(), a.policyDisable(), a.policyEnable())
}

func (a *app) policyShow() *cobra.Command {
	p := &place{a: a}
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "List the releases that are disabled",
		Example: "  bailey-fleet repo policy show --dir ./repo --root root.json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return p.change(func(r *publish.Repository, _ []publish.Signer) error {
				policy, err := r.Policy()
				if err != nil {
					return err
				}
				return a.print(policy, func() {
					for _, d := range policy.Disabled {
						a.printf("%s/%s/%s  %s  %s\n", d.Vendor, d.Product, d.Kind, d.Version, d.Reason)
					}
				})
			})
		},
	}
	p.flags(cmd)
	return cmd
}

func (a *app) policyDisable() *cobra.Command {
	p := &place{a: a}
	reason := ""
	cmd := &cobra.Command{
		Use:     "disable VENDOR/PRODUCT/code|content VERSION",
		Short:   "Have no machine run a release any more",
		Example: "  bailey-fleet repo policy disable acme/edr/content 2026.11.22.1 --reason 'crashes its parser' --dir ./repo --keys ./keys",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return &failure{ExitUsage, "operators will want to know why", "say it with --reason"}
			}
			return a.setPolicy(cmd.Context(), p, args, func(policy *release.Policy, s release.Stream, v release.Version) error {
				if _, yes := policy.Disables(s, v); yes {
					return &failure{ExitConflict, fmt.Sprintf("%s %s is disabled already", s, v), ""}
				}
				policy.Disabled = append(policy.Disabled, release.Disabled{Vendor: s.Vendor, Product: s.Product, Kind: s.Kind, Version: v, Reason: reason})
				return nil
			})
		},
	}
	p.flags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "one line for operators")
	return cmd
}

func (a *app) policyEnable() *cobra.Command {
	p := &place{a: a}
	cmd := &cobra.Command{
		Use:     "enable VENDOR/PRODUCT/code|content VERSION",
		Short:   "Take back that a release is disabled",
		Example: "  bailey-fleet repo policy enable acme/edr/content 2026.11.22.1 --dir ./repo --keys ./keys",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.setPolicy(cmd.Context(), p, args, func(policy *release.Policy, s release.Stream, v release.Version) error {
				if _, yes := policy.Disables(s, v); !yes {
					return &failure{ExitNotFound, fmt.Sprintf("%s %s is not disabled", s, v), ""}
				}
				kept := []release.Disabled{}
				for _, d := range policy.Disabled {
					if (release.Stream{Vendor: d.Vendor, Product: d.Product, Kind: d.Kind}) != s || d.Version.Compare(v) != 0 {
						kept = append(kept, d)
					}
				}
				policy.Disabled = kept
				return nil
			})
		},
	}
	p.flags(cmd)
	return cmd
}

func (a *app) setPolicy(ctx context.Context, p *place, args []string, how func(*release.Policy, release.Stream, release.Version) error) error {
	s, err := release.ParseStream(args[0])
	if err != nil {
		return &failure{ExitUsage, err.Error(), ""}
	}
	v, err := release.ParseVersion(args[1])
	if err != nil {
		return &failure{ExitUsage, err.Error(), ""}
	}
	return p.change(func(r *publish.Repository, signers []publish.Signer) error {
		policy, err := r.Policy()
		if err != nil {
			return err
		}
		if err := how(&policy, s, v); err != nil {
			return err
		}
		if err := r.SetPolicy(ctx, policy, signers); err != nil {
			return err
		}
		shown := r.CanAnnounce(signers)
		if shown {
			if err := r.Announce(ctx, signers); err != nil {
				return err
			}
		}
		return a.print(policy, func() {
			a.printf("%d releases are disabled\n", len(policy.Disabled))
			if !shown {
				a.note("machines will see it after `bailey-fleet repo renew` with the keys of the snapshot and the timestamp")
			}
		})
	})
}

func (a *app) serve() *cobra.Command {
	dir, listen := ".", "127.0.0.1:8420"
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve a repository over HTTP: for tests and small sites",
		Long: `Serve a repository over plain HTTP until a signal. Machines need not trust whoever serves: use any web server, or this one. It
needs no keys and should have none.`,
		Example: "  bailey-fleet repo serve --dir ./repo --listen 0.0.0.0:8420",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.listen(cmd.Context(), dir, listen) },
	}
	cmd.Flags().StringVar(&dir, "dir", dir, "directory of the repository")
	cmd.Flags().StringVar(&listen, "listen", listen, "address and port; port 0 takes any")
	return cmd
}

func (a *app) listen(ctx context.Context, dir, address string) error {
	h, err := publish.Handler(dir)
	if err != nil {
		return fmt.Errorf("serve %s: %w", dir, err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("serve %s: %w", dir, err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	a.note("serving %s at http://%s", dir, l.Addr())
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve %s: %w", dir, err)
	case <-ctx.Done():
	}
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	if err := s.Shutdown(last); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}
