package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bailey/agent/unlock/operatorkey"
	"bailey/agent/unlock/token"
	"bailey/internal/command"
	"bailey/internal/passphrase"

	"github.com/spf13/cobra"
)

func (a *app) operator() *cobra.Command {
	return command.Group(&cobra.Command{
		Use:   "operator",
		Short: "Make operators' keys and sign tokens with them, without an agent",
		Long: `The guard keeps even root from stopping and changing the agent. An operator's token unlocks it on one
machine, for some purposes, for some minutes, once. Keys and tokens are made here: offline, on a
machine of the operator's, never on the one that is guarded.`,
		Example: `  bailey operator keygen --out alice.key --name alice
  bailey operator sign --key alice.key --host-id 425e9035a4f0c534db894ac99b5abf2f --scope stop,upgrade --for 10m
  bailey unlock --token baileytoken1aaaaaa…       # on that machine`,
	}, a.operatorKeygen(), a.operatorSign(), a.operatorShow(), a.operatorHost())
}

func (a *app) operatorKeygen() *cobra.Command {
	var out, name, words string
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make an operator's key",
		Long: `Make an operator's key: FILE, sealed with a passphrase, to sign tokens with, and FILE.pub, whose line the
agents are given. The line is printed too.`,
		Example: `  bailey operator keygen --out alice.key --name alice
  sudo install -m 644 alice.key.pub /etc/bailey/operators/alice.pub     # on each machine`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return &failure{ExitUsage, "the key needs a file", "name one with --out"}
			}
			return a.keygen(cmd.Context(), out, name, words)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file for the sealed private key; the public one is FILE.pub")
	cmd.Flags().StringVar(&name, "name", "", "whose key it is, as agents show it")
	passphraseFlag(cmd, &words)
	return cmd
}

func passphraseFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "passphrase-file", "", "file whose first line is the passphrase (default: ask on the terminal)")
}

func (a *app) keygen(ctx context.Context, out, name, file string) error {
	for _, path := range []string{out, out + operatorkey.PublicSuffix} { // before the passphrase is asked for
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return &failure{ExitConflict, path + " is there already, and a key is never overwritten", "choose another file with --out"}
		}
	}
	public, private, err := operatorkey.Generate(name)
	if err != nil {
		return &failure{ExitUsage, err.Error(), "give another --name"}
	}
	words, err := passphrase.Read(ctx, "", file, true)
	if err != nil {
		return err
	}
	if len(words) < operatorkey.MinPassphrase {
		return &failure{ExitUsage, fmt.Sprintf("the passphrase has %d bytes, and needs at least %d", len(words), operatorkey.MinPassphrase), "use several words"}
	}
	text, err := operatorkey.Seal(public, private, words)
	if err != nil {
		return err
	}
	if err := operatorkey.Create(out, text, 0o600); err != nil {
		return err
	}
	if err := operatorkey.Create(out+operatorkey.PublicSuffix, []byte(public.String()+"\n"), 0o644); err != nil {
		return err
	}
	if a.json {
		return a.printValue(map[string]any{"key": public.ID().String(), "public": public.String(), "file": out})
	}
	a.printf("%s\n", public)
	a.note("%s is the key, and %s.pub is for the agents: into [operator] key_dir (/etc/bailey/operators), or its line into [operator] keys", out, filepath.Base(out))
	return nil
}

// signing is what `bailey operator sign` is told.
type signing struct {
	key, passphrase, machine, host, notBefore, asOf string
	any                                             bool
	scopes                                          []string
	span                                            time.Duration
}

func (a *app) operatorSign() *cobra.Command {
	var s signing
	cmd := &cobra.Command{
		Use:   "sign",
		Short: "Sign a token that unlocks the guard of one machine for a while",
		Long: `Sign a token and print it: one word that survives copying. It counts once, between its times, on its machine,
if the agent there trusts the key. The scopes are
` + scopeHelp(),
		Example: `  bailey operator sign --key alice.key --host-id 425e9035a4f0c534db894ac99b5abf2f --scope stop --for 10m
  bailey operator sign --key alice.key --host-id 425e… --scope upgrade --not-before 2026-03-01T22:00:00Z --for 4h
  bailey operator sign --key alice.key --any-host --scope config        # the first to use it on each machine may`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.sign(cmd.Context(), s, time.Now())
			if err != nil {
				return err
			}
			if a.json {
				return a.printValue(tokenView(t))
			}
			a.printf("%s\n", t.Text())
			a.note("it unlocks %s for %s from %s until %s", hostText(t.Host), strings.Join(t.Scopes.Words(), ", "), stamp(t.NotBefore), stamp(t.Expires))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.key, "key", "", "file of the operator's key")
	f.StringVar(&s.machine, "host", "", "the machine, by the content of its /etc/machine-id")
	f.StringVar(&s.host, "host-id", "", "the machine, by what `bailey operator host` or `bailey status` print there")
	f.BoolVar(&s.any, "any-host", false, "every machine that trusts the key: once on each")
	f.StringSliceVar(&s.scopes, "scope", nil, "what it allows: "+token.AllScopes.String())
	f.DurationVar(&s.span, "for", 10*time.Minute, "how long it is valid, at most "+token.MaxWindow.String())
	f.StringVar(&s.notBefore, "not-before", "", "when it begins: a time (RFC 3339), or a duration from now (default: at once)")
	f.StringVar(&s.asOf, "as-of", "", "sign as if it were this time (RFC 3339), for a machine whose time is wrong and stays so")
	passphraseFlag(cmd, &s.passphrase)
	_ = cmd.RegisterFlagCompletionFunc("scope", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return token.AllScopes.Words(), cobra.ShellCompDirectiveNoFileComp
	}) // it fails only for a flag that is not there
	return cmd
}

func scopeHelp() string {
	var lines []string
	for _, w := range token.AllScopes.Words() {
		lines = append(lines, fmt.Sprintf("  %-8s %s", w, token.Means(w)))
	}
	return strings.Join(lines, "\n")
}

// sign makes the token.
func (a *app) sign(ctx context.Context, s signing, now time.Time) (*token.Token, error) {
	g, err := s.grant(now)
	if err != nil {
		return nil, err
	}
	sealed, err := operatorkey.ReadSealed(s.key)
	if err != nil {
		return nil, err
	}
	words, err := passphrase.Read(ctx, "", s.passphrase, false)
	if err != nil {
		return nil, err
	}
	key, err := sealed.Open(words)
	if err != nil {
		return nil, &failure{ExitFailed, fmt.Sprintf("open %s: %v", s.key, err), "try again"}
	}
	t, err := token.Issue(g, key)
	var refused *token.Error
	if errors.As(err, &refused) {
		return nil, &failure{ExitUsage, refused.Text, refused.Hint()}
	}
	return t, err
}

// grant reads what the command line asks for.
func (s *signing) grant(now time.Time) (g token.Grant, err error) {
	g = token.Grant{Issued: now, For: s.span}
	if s.key == "" {
		return g, &failure{ExitUsage, "no key to sign with", "name the file that `bailey operator keygen` wrote with --key"}
	}
	if g.Host, err = s.target(); err != nil {
		return g, err
	}
	if len(s.scopes) == 0 {
		return g, &failure{ExitUsage, "a token without a scope allows nothing", "name with --scope what it is to allow: " + token.AllScopes.String()}
	}
	if g.Scopes, err = token.ParseScopes(s.scopes); err != nil {
		return g, &failure{ExitUsage, err.Error(), "see `bailey operator sign --help`"}
	}
	if s.asOf != "" {
		if g.Issued, err = time.Parse(time.RFC3339, s.asOf); err != nil {
			return g, &failure{ExitUsage, fmt.Sprintf("--as-of %q is no time", s.asOf), "write it as the agent said it, e.g. 2026-03-01T22:00:00Z"}
		}
	}
	if s.notBefore == "" {
		return g, nil
	}
	if d, ok := parseSpan(s.notBefore); ok {
		g.NotBefore = g.Issued.Add(d)
		return g, nil
	}
	if g.NotBefore, err = time.Parse(time.RFC3339, s.notBefore); err != nil {
		return g, &failure{ExitUsage, fmt.Sprintf("--not-before %q is no time", s.notBefore), "write e.g. 2026-03-01T22:00:00Z, or 2h for in two hours"}
	}
	return g, nil
}

// target reads which machine the token is for.
func (s *signing) target() (token.Host, error) {
	chosen := 0
	for _, is := range []bool{s.machine != "", s.host != "", s.any} {
		if is {
			chosen++
		}
	}
	if chosen != 1 {
		return token.Host{}, &failure{ExitUsage, "a token is for one machine, or for all", "give one of --host-id (what `bailey operator host` prints there), --host (the content of its /etc/machine-id) and --any-host"}
	}
	var h token.Host
	var err error
	switch {
	case s.machine != "":
		h, err = token.HostOf(s.machine)
	case s.host != "":
		h, err = token.ParseHost(s.host)
	}
	if err != nil {
		return h, &failure{ExitUsage, err.Error(), "run `bailey operator host` on that machine"}
	}
	return h, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func hostText(h token.Host) string {
	if h.Any() {
		return "every host"
	}
	return "host " + h.String()
}

// viewedToken is a token as --json shows it.
type viewedToken struct {
	Token     string   `json:"token"`
	Host      string   `json:"host"` // "*": every host
	Scopes    []string `json:"scopes"`
	Issued    string   `json:"issued"`
	NotBefore string   `json:"not_before"`
	Expires   string   `json:"expires"`
	Nonce     string   `json:"nonce"`
	Key       string   `json:"key"`
	Signature string   `json:"signature,omitempty"` // good, where a key was given to check it with
}

func tokenView(t *token.Token) viewedToken {
	return viewedToken{
		Token: t.Text(), Host: t.Host.String(), Scopes: t.Scopes.Words(), Issued: stamp(t.Issued), NotBefore: stamp(t.NotBefore),
		Expires: stamp(t.Expires), Nonce: t.Nonce.String(), Key: t.Key.String(),
	}
}

func (a *app) operatorShow() *cobra.Command {
	var public string
	cmd := &cobra.Command{
		Use:   "show TOKEN",
		Short: "Explain a token",
		Example: `  bailey operator show baileytoken1aaaaaa…
  bailey operator show baileytoken1aaaaaa… --public alice.key.pub       # and check its signature`,
		Args: exactly(1, "name one token"),
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := token.Parse(token.Clean(args[0]))
			var refused *token.Error
			if errors.As(err, &refused) {
				return &failure{ExitUsage, refused.Text, refused.Hint()}
			}
			if err != nil {
				return err
			}
			return a.showToken(t, public, time.Now())
		},
	}
	cmd.Flags().StringVar(&public, "public", "", "file of a public key to check the signature with")
	return cmd
}

func (a *app) showToken(t *token.Token, public string, now time.Time) error {
	v, checked := tokenView(t), "not checked: name the key's .pub file with --public"
	if public != "" {
		keys, err := operatorkey.ReadFile(public)
		if err != nil {
			return err
		}
		key, known := keys.Find(t.Key)
		if !known || t.Verify(key.Key) != nil {
			return &failure{ExitFailed, "the token is not signed with a key in " + public, "its key is " + t.Key.String()}
		}
		v.Signature, checked = "good", "good, by "+plain(key.Name)
	}
	if a.json {
		return a.printValue(v)
	}
	var tab table
	host := t.Host.String()
	if t.Host.Any() {
		host = "every host, once on each"
	} else if own, err := token.ThisHost(); err == nil && own == t.Host {
		host += " (this one)"
	}
	tab.row("host", host)
	for i, w := range t.Scopes.Words() {
		head := ""
		if i == 0 {
			head = "allows"
		}
		tab.row(head, w+": "+token.Means(w))
	}
	tab.row("issued", v.Issued)
	tab.row("valid from", v.NotBefore)
	tab.row("until", v.Expires+validity(t, now))
	tab.row("key", v.Key)
	tab.row("nonce", v.Nonce)
	tab.row("signature", checked)
	tab.print(a.Stdout, "")
	return nil
}

func validity(t *token.Token, now time.Time) string {
	switch {
	case !now.Before(t.Expires):
		return " (expired, by this machine's clock)"
	case now.Before(t.NotBefore):
		return " (not yet valid, by this machine's clock)"
	}
	return fmt.Sprintf(" (%s left, by this machine's clock)", t.Expires.Sub(now).Round(time.Second))
}

func (a *app) operatorHost() *cobra.Command {
	return &cobra.Command{
		Use:   "host",
		Short: "Print what tokens name this machine by",
		Example: `  bailey operator host
  ssh db1 bailey operator host`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			h, err := token.ThisHost()
			if err != nil {
				return &failure{ExitFailed, err.Error(), "make a machine id with `systemd-machine-id-setup`"}
			}
			if a.json {
				return a.printValue(map[string]any{"host": h.String()})
			}
			a.printf("%s\n", h)
			return nil
		},
	}
}
