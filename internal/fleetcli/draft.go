package fleetcli

import (
	"fmt"
	"os"

	"bailey/internal/command"
	"bailey/internal/durable"
	"bailey/update/publish"

	"github.com/spf13/cobra"
)

func (a *app) draft() *cobra.Command {
	return command.Group(&cobra.Command{
		Use:   "draft",
		Short: "Collect signatures for a new root from holders in different places",
		Long: `A root is signed by several people, who should not have to bring their keys to one place. "repo rotate --draft" writes the next root
into a file; each holder looks at it and signs it, offline, and hands it on; when enough have, it is adopted.`,
		Example: `  bailey-fleet repo rotate timestamp --public new.key.pub --draft root.draft --dir ./repo --root root.json
  bailey-fleet repo draft show root.draft
  bailey-fleet repo draft sign root.draft --key root-1.key
  bailey-fleet repo draft adopt root.draft --key new.key --dir ./repo --keys ./online --root root.json`,
	}, a.draftShow(), a.draftSign(), a.draftAdopt())
}

// makeDraft writes the next root into a new file.
func makeDraft(r *publish.Repository, path string, change publish.Rotation) error {
	text, err := r.DraftRoot(change)
	if err != nil {
		return err
	}
	return durable.Create(path, text, 0o644)
}

func (a *app) draftShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show FILE",
		Short:   "Show what a draft says, before it is signed",
		Example: "  bailey-fleet repo draft show root.draft",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			return a.showDraft(text)
		},
	}
}

func (a *app) showDraft(text []byte) error {
	d, err := publish.ReadDraft(text)
	if err != nil {
		return err
	}
	return a.print(d, func() {
		a.printf("root %d, until %s\n", d.Version, d.Expires)
		for _, role := range d.Roles {
			a.printf("%s  %d of", role.Role, role.Threshold)
			for _, k := range role.Keys {
				a.printf(" %s", k.Short())
			}
			a.printf("\n")
		}
		a.printf("signed by")
		for _, k := range d.Signed {
			a.printf(" %s", k.Short())
		}
		if len(d.Signed) == 0 {
			a.printf(" nobody")
		}
		a.printf("\n")
	})
}

func (a *app) draftSign() *cobra.Command {
	p := &place{a: a}
	cmd := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign a draft with a root key, offline",
		Long: `Sign a draft with the keys of --key, and show what was signed. It needs no repository and no network. Look at it first with "repo draft
show": whoever holds enough root keys decides whom every machine believes.`,
		Example: "  bailey-fleet repo draft sign root.draft --key root-1.key",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(p.keys) == 0 {
				return &failure{ExitUsage, "it is not known with which key", "name it with --key"}
			}
			signers, err := p.signers()
			if err != nil {
				return err
			}
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			if text, err = publish.SignDraft(cmd.Context(), text, signers); err != nil {
				return err
			}
			if err := durable.Replace(args[0], text, 0o644); err != nil {
				return fmt.Errorf("write %s: %w", args[0], err)
			}
			return a.showDraft(text)
		},
	}
	cmd.Flags().StringArrayVar(&p.keys, "key", nil, "file of a key that signs; can be given several times")
	cmd.Flags().StringVar(&p.passphrase, "passphrase-file", "", "file whose first line is the passphrase of all keys (default: ask on the terminal)")
	return cmd
}

func (a *app) draftAdopt() *cobra.Command {
	p := &place{a: a}
	cmd := &cobra.Command{
		Use:   "adopt FILE",
		Short: "Publish a draft that enough have signed",
		Long: `Make a draft the repository's root, and sign what its roles sign: this needs the snapshot's and the timestamp's keys, and the targets
key if that is what changed.`,
		Example: "  bailey-fleet repo draft adopt root.draft --key new.key --dir ./repo --keys ./online --root root.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			err = p.change(func(r *publish.Repository, signers []publish.Signer) error {
				return r.AdoptRoot(cmd.Context(), text, signers)
			})
			if err != nil {
				return err
			}
			return a.print(map[string]bool{"ok": true}, func() { a.printf("adopted\n") })
		},
	}
	p.flags(cmd)
	return cmd
}
