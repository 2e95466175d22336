package fleetcli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bailey/internal/command"
	"bailey/internal/durable"
	"bailey/internal/passphrase"
	"bailey/internal/sealedkey"
	"bailey/update/publish"
	"bailey/update/release"

	"github.com/spf13/cobra"
)

func (a *app) repo() *cobra.Command {
	return command.Group(&cobra.Command{
		Use:   "repo",
		Short: "Make a repository of releases and change it",
		Long: `A repository is two directories of static files, metadata and targets. Commands that change it sign with the keys
at hand, and first verify what is there, from a root that is known: whoever can only write the directory cannot have anything signed.`,
		Example: `  bailey-fleet repo init --dir ./repo --keys ./keys
  bailey-fleet repo verify --dir ./repo --keys ./keys`,
	}, a.keygen(), a.init(), a.vendor(), a.pack(), a.publish(), a.policy(), a.renew(), a.rotate(), a.draft(), a.verify(), a.serve())
}

func (a *app) keygen() *cobra.Command {
	p := &place{a: a}
	cmd := &cobra.Command{
		Use:     "keygen FILE",
		Short:   "Make a key: FILE, sealed with a passphrase, and FILE.pub",
		Example: "  bailey-fleet repo keygen acme.key",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			words, err := p.newPassphrase(cmd.Context())
			if err != nil {
				return err
			}
			k, err := publish.WriteKey(args[0], words)
			if err != nil {
				return err
			}
			return a.print(map[string]string{"key": string(k.ID), "file": args[0]}, func() { a.printf("%s\n", k.ID) })
		},
	}
	cmd.Flags().StringVar(&p.passphrase, "passphrase-file", "", "file whose first line is the passphrase (default: ask on the terminal)")
	return cmd
}

// newPassphrase gets the passphrase for new keys.
func (p *place) newPassphrase(ctx context.Context) ([]byte, error) {
	words, err := passphrase.Read(ctx, "for new keys", p.passphrase, true)
	if err == nil && len(words) < sealedkey.MinPassphrase {
		err = &failure{ExitUsage, fmt.Sprintf("the passphrase has %d bytes, and needs at least %d", len(words), sealedkey.MinPassphrase), "use several words"}
	}
	return words, err
}

func (a *app) init() *cobra.Command {
	p := &place{a: a}
	roots, threshold := 3, 2
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make an empty repository and the keys that sign it",
		Long: `Make an empty repository in --dir, and in --keys the keys that are not there yet: root-1 to root-N, targets, policy,
snapshot and timestamp. Then move the root, targets and policy keys to where no network is: root-* change the others, targets adds
and removes vendors, policy disables releases. snapshot and timestamp sign at every publication and every day. ` + rootName + ` is
what agents come with.`,
		Example: `  bailey-fleet repo init --dir ./repo --keys ./keys
  bailey-fleet repo init --dir ./repo --keys ./keys --root-keys 5 --root-threshold 3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.makeRepository(cmd.Context(), p, roots, threshold)
		},
	}
	cmd.Flags().StringVar(&p.dir, "dir", ".", "directory of the repository")
	cmd.Flags().IntVar(&roots, "root-keys", roots, "how many root keys there are")
	cmd.Flags().IntVar(&threshold, "root-threshold", threshold, "how many of them sign together")
	p.keyFlags(cmd)
	return cmd
}

func (a *app) makeRepository(ctx context.Context, p *place, roots, threshold int) error {
	if p.keyDir == "" {
		return &failure{ExitUsage, "the keys need a directory", "name one with --keys"}
	}
	if roots < 1 || roots > 16 || threshold < 1 || threshold > roots {
		return &failure{ExitUsage, fmt.Sprintf("a root cannot be signed by %d of %d keys", threshold, roots), "choose --root-keys and --root-threshold"}
	}
	if err := os.MkdirAll(p.keyDir, 0o700); err != nil {
		return err
	}
	names := []string{"targets", "snapshot", "timestamp", "policy"}
	for i := range roots {
		names = append(names, fmt.Sprintf("root-%d", i+1))
	}
	if err := p.makeKeys(ctx, names); err != nil {
		return err
	}
	holders := map[string]publish.Holders{}
	for _, n := range names {
		keys, err := public([]string{filepath.Join(p.keyDir, n+keySuffix+publish.PublicSuffix)})
		if err != nil {
			return err
		}
		role, _, _ := strings.Cut(n, "-")
		h := holders[role]
		h.Keys, h.Threshold = append(h.Keys, keys...), 1
		holders[role] = h
	}
	signers, err := p.signers()
	if err != nil {
		return err
	}
	root, err := publish.Init(ctx, publish.Config{Dir: p.dir, Now: a.Now}, publish.Setup{
		Root: publish.Holders{Keys: holders["root"].Keys, Threshold: threshold}, Targets: holders["targets"], Snapshot: holders["snapshot"],
		Timestamp: holders["timestamp"], Policy: holders["policy"],
	}, signers)
	if err != nil {
		return err
	}
	path := filepath.Join(p.keyDir, rootName)
	if err := durable.Replace(path, root, 0o644); err != nil {
		return err
	}
	return a.print(map[string]any{"dir": p.dir, "root": path, "keys": names}, func() {
		a.printf("%s is a repository; agents come with %s\n", p.dir, path)
		a.note("move root-*%s, targets%s and policy%s away from any network now; snapshot%s and timestamp%s stay", keySuffix, keySuffix, keySuffix, keySuffix, keySuffix)
	})
}

// makeKeys makes the keys that are not there.
func (p *place) makeKeys(ctx context.Context, names []string) error {
	var words []byte
	for _, n := range names {
		path := filepath.Join(p.keyDir, n+keySuffix)
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		if words == nil {
			var err error
			if words, err = p.newPassphrase(ctx); err != nil {
				return err
			}
		}
		if _, err := publish.WriteKey(path, words); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) vendor() *cobra.Command {
	return command.Group(&cobra.Command{
		Use:     "vendor",
		Short:   "Say who signs for which product",
		Example: "  bailey-fleet repo vendor add acme/edr/content --public acme.key.pub --dir ./repo --keys ./keys",
	}, a.vendorAdd())
}

func (a *app) vendorAdd() *cobra.Command {
	p := &place{a: a}
	var paths []string
	threshold := 1
	cmd := &cobra.Command{
		Use:   "add VENDOR/PRODUCT/code|content",
		Short: "Give a stream of releases to the holders of keys",
		Long: `Give a stream to the holders of the named keys, and of no other stream. With other keys than before the stream is taken from
those: what they signed counts no more. Code and content have keys of their own. This signs with the targets key.`,
		Example: `  bailey-fleet repo vendor add acme/edr/content --public acme.key.pub --dir ./repo --keys ./keys
  bailey-fleet repo vendor add acme/edr/code --public a.pub --public b.pub --threshold 2 --dir ./repo --keys ./keys`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := release.ParseStream(args[0])
			if err != nil {
				return &failure{ExitUsage, err.Error(), ""}
			}
			keys, err := public(paths)
			if err != nil {
				return err
			}
			if len(keys) == 0 {
				return &failure{ExitUsage, "a stream needs a key", "name its public half with --public"}
			}
			err = p.change(func(r *publish.Repository, signers []publish.Signer) error {
				return r.AddVendor(cmd.Context(), s, publish.Holders{Keys: keys, Threshold: threshold}, signers)
			})
			if err != nil {
				return err
			}
			return a.print(map[string]any{"stream": s.String(), "role": s.Role(), "keys": len(keys), "threshold": threshold}, func() {
				a.printf("%s is signed by %d of %d keys\n", s, threshold, len(keys))
			})
		},
	}
	p.flags(cmd)
	cmd.Flags().StringArrayVar(&paths, "public", nil, "file of a public key: FILE.pub of keygen, or PEM; can be given several times")
	cmd.Flags().IntVar(&threshold, "threshold", threshold, "how many of the keys sign together")
	return cmd
}

func (a *app) renew() *cobra.Command {
	p := &place{a: a}
	var roles []string
	cmd := &cobra.Command{
		Use:   "renew",
		Short: "Sign the timestamp again, and show what was signed since",
		Long: `Sign the timestamp again, and the snapshot if there is news or half of its time is over. Run it several times a day: a machine
that finds an expired timestamp takes nothing new. New files of roles that vendors brought to metadata are shown from now on. With
--role the signature of targets, of policy or of a stream is renewed too; "repo verify" names those that expire soon.`,
		Example: `  bailey-fleet repo renew --dir ./repo --keys ./online --root root.json --passphrase-file /run/credentials/passphrase
  bailey-fleet repo renew --role acme/edr/content --key acme.key --dir ./repo --keys ./online --root root.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.change(func(r *publish.Repository, signers []publish.Signer) error {
				for _, role := range roles {
					if role != "targets" && role != release.PolicyRole {
						s, err := release.ParseStream(role)
						if err != nil {
							return &failure{ExitUsage, err.Error(), "or it is targets or policy"}
						}
						role = s.Role()
					}
					if err := r.Renew(cmd.Context(), role, signers); err != nil {
						return err
					}
				}
				if err := r.Announce(cmd.Context(), signers); err != nil {
					return err
				}
				return a.print(map[string]bool{"ok": true}, func() { a.printf("renewed\n") })
			})
		},
	}
	p.flags(cmd)
	cmd.Flags().StringArrayVar(&roles, "role", nil, "targets, policy or a stream, whose own signature is renewed; can be given several times")
	return cmd
}

func (a *app) rotate() *cobra.Command {
	p := &place{a: a}
	var paths []string
	draft := ""
	threshold := 1
	cmd := &cobra.Command{
		Use:   "rotate ROLE",
		Short: "Give root, targets, snapshot, timestamp or policy to other keys",
		Long: `Give a role to other keys, and so revoke those that it had. All but policy make a new root, which the old and the new root keys
sign. After a theft of the timestamp's or the snapshot's key rotate both. With --draft nothing is signed: the new root goes into a
file, for holders of root keys in different places ("bailey-fleet repo draft").`,
		Example: `  bailey-fleet repo rotate timestamp --public new.key.pub --key new.key --dir ./repo --keys ./keys
  bailey-fleet repo rotate root --public a.pub --public b.pub --threshold 2 --dir ./repo --keys ./keys`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{"root", "targets", "snapshot", "timestamp", "policy"},
		RunE: func(cmd *cobra.Command, args []string) error {
			role := args[0]
			if !slices.Contains(cmd.ValidArgs, role) {
				return &failure{ExitUsage, fmt.Sprintf("%q is no role", role), "it is one of " + strings.Join(cmd.ValidArgs, ", ")}
			}
			keys, err := public(paths)
			if err != nil {
				return err
			}
			h := publish.Holders{Keys: keys, Threshold: threshold}
			err = p.change(func(r *publish.Repository, signers []publish.Signer) error {
				if draft != "" {
					return makeDraft(r, draft, publish.Rotation{role: h})
				}
				if role == release.PolicyRole {
					return r.SetPolicyHolders(cmd.Context(), h, signers)
				}
				return r.Rotate(cmd.Context(), publish.Rotation{role: h}, signers)
			})
			if err != nil {
				return err
			}
			return a.print(map[string]any{"role": role, "keys": len(keys), "threshold": threshold, "draft": draft}, func() {
				if draft != "" {
					a.printf("%s is a draft, to be signed by holders of root keys with `bailey-fleet repo draft sign`\n", draft)
					return
				}
				a.printf("%s is signed by %d of %d new keys\n", role, threshold, len(keys))
			})
		},
	}
	p.flags(cmd)
	cmd.Flags().StringArrayVar(&paths, "public", nil, "file of a public key; can be given several times")
	cmd.Flags().StringVar(&draft, "draft", "", "new file for the unsigned root, instead of signing it now")
	cmd.Flags().IntVar(&threshold, "threshold", threshold, "how many of the keys sign together")
	return cmd
}

func (a *app) verify() *cobra.Command {
	p := &place{a: a}
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Look at the whole repository as a new machine does",
		Long: `Verify every signature from the known root on, every bundle's bytes, and that manifests say what signatures say. The exit code is
1 if a machine would stumble over anything.`,
		Example: "  bailey-fleet repo verify --dir ./repo --root ./keys/root.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := p.config()
			if err != nil {
				return err
			}
			report, err := publish.Verify(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if err := a.print(report, func() { a.show(report) }); err != nil {
				return err
			}
			if len(report.Problems) != 0 {
				return &failure{ExitFailed, fmt.Sprintf("the repository has %d problems", len(report.Problems)), ""}
			}
			return nil
		},
	}
	p.flags(cmd)
	return cmd
}

func (a *app) show(r publish.Report) {
	a.printf("root %d, timestamp %d, snapshot %d; to be renewed before %s\n", r.Versions.Root, r.Versions.Timestamp, r.Versions.Snapshot, r.Expires.UTC().Format("2006-01-02 15:04Z"))
	for _, s := range r.Streams {
		a.printf("%s  %d releases", s.Stream, len(s.Releases))
		if len(s.Releases) > 0 {
			a.printf(", newest %s", s.Releases[0])
		}
		a.printf("\n")
	}
	if r.Disabled > 0 {
		a.printf("%d releases are disabled\n", r.Disabled)
	}
	if len(r.Unused) > 0 {
		a.printf("%d files are used by nothing any more\n", len(r.Unused))
	}
	for _, e := range r.Expiring {
		a.printf("expires soon: %s, on %s\n", e.Role, e.Expires.UTC().Format("2006-01-02"))
	}
	for _, text := range r.Problems {
		a.printf("problem: %s\n", text)
	}
}
