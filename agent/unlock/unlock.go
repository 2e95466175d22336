package unlock

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"bailey/agent/unlock/operatorkey"
	"bailey/agent/unlock/token"
)

// Unlock opens the guard if the token counts here and now. An error says why not, with a hint.
func (d *Door) Unlock(text string) (State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cfg.Guard == nil { // the token is not used up
		return d.state(), d.errNoGuard()
	}
	d.load()
	tok, err := token.Parse(text)
	if err != nil {
		return d.state(), d.refused(nil, operatorkey.Public{}, err)
	}
	key, now, err := d.judge(tok)
	if err == nil {
		err = d.open(tok, key, now)
	}
	if err != nil {
		return d.state(), d.refused(tok, key, err)
	}
	d.tell()
	return d.state(), nil
}

// judge tests everything that makes a token count, and returns its key and what time it is.
func (d *Door) judge(tok *token.Token) (key operatorkey.Public, now time.Time, err error) {
	keys, kerr := d.cfg.Keys()
	key, known := keys.Find(tok.Key)
	if !known {
		hint := "sign with a key that is in [operator] keys or in [operator] key_dir of this machine: " + named(keys)
		if kerr != nil {
			hint += "; not all could be read: " + kerr.Error()
		}
		return key, now, token.Refuse("key", hint, "the token is of key %s, which this machine does not trust", tok.Key)
	}
	if err := tok.Verify(key.Key); err != nil {
		return key, now, err
	}
	host, err := d.host()
	if err != nil && !tok.Host.Any() {
		return key, now, token.Refuse("host", "make a machine id with `systemd-machine-id-setup`", "this machine has no name that a token could have: %v", err)
	}
	if !tok.Host.Any() && tok.Host != host {
		return key, now, token.Refuse("host", "sign one with --host-id "+host.String(), "the token is for host %s, and this is %s", tok.Host, host)
	}
	if now, err = d.timely(tok); err != nil {
		return key, now, err
	}
	if d.rec.has(tok.Nonce) {
		return key, now, token.Refuse("used", "sign another one with `bailey operator sign`", "the token was used before, and each counts once")
	}
	return key, now, nil
}

func named(keys operatorkey.Trusted) string {
	if len(keys) == 0 {
		return "there is none yet"
	}
	var out []string
	for _, k := range keys {
		out = append(out, shown(k.ID().String(), k.Name))
	}
	return strings.Join(out, ", ")
}

// timely returns what time it is if the token is valid then.
func (d *Door) timely(tok *token.Token) (time.Time, error) {
	boot, wall := d.cfg.Boot(), d.cfg.Now()
	now := later(wall, d.floor.now(boot))
	if tok.Issued.After(now) {
		if d.cfg.Synchronised() && tok.Issued.Sub(wall) > maxSkew {
			return now, token.Refuse("time", "correct the clock of the machine that signs, or this one's", "the token was issued at %s, and here it is only %s", stamp(tok.Issued), stamp(now))
		}
		now = tok.Issued // somebody with the key has signed that it is so late
	}
	ahead := ""
	if now.Sub(wall) > maxSkew {
		ahead = fmt.Sprintf("; its clock says %s, but later times were known here before", stamp(wall))
	}
	switch {
	case now.Before(tok.NotBefore):
		return now, token.Refuse("time", "use it then", "the token is valid from %s on, and here it is %s%s", stamp(tok.NotBefore), stamp(now), ahead)
	case !now.Before(tok.Expires):
		return now, token.Refuse("time", "sign another one with `bailey operator sign`; if it is this machine's time that is wrong, with --as-of "+stamp(now), "the token expired at %s, and here it is %s%s", stamp(tok.Expires), stamp(now), ahead)
	}
	return now, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// open writes down that the token is used, and then opens the guard.
func (d *Door) open(tok *token.Token, key operatorkey.Public, now time.Time) error {
	if d.broken != nil {
		return token.Refuse("record", "see `bailey status`", "which tokens were used before cannot be known: %v", d.broken)
	}
	boot := d.cfg.Boot()
	before, floorBefore := d.rec, d.floor
	rec, room := d.rec.with(used{Nonce: tok.Nonce.String(), Expires: tok.Expires.Unix()}, now)
	if !room {
		return token.Refuse("full", "wait until one of them expires", "%d tokens were used and have not expired", maxUsed)
	}
	rec.Open = &opened{
		Scopes: tok.Scopes.Words(), Until: boot + uint64(tok.Expires.Sub(now)), Expires: d.cfg.Now().Add(tok.Expires.Sub(now)).Unix(),
		Key: tok.Key.String(), Name: key.Name, Nonce: tok.Nonce.String(),
	}
	d.rec, d.floor = rec, d.floor.raised(tok.Issued, boot)
	if err := d.save(); err != nil {
		d.rec, d.floor = before, floorBefore
		return token.Refuse("record", "make room in "+d.cfg.State+" and make it writable", "the token cannot be marked as used, so it does not count: %v", err)
	}
	fields := rec.Open.fields("accepted", "")
	fields["host"], fields["expires"], fields["until_boot"] = tok.Host.String(), stamp(tok.Expires), rec.Open.Until
	if err := d.cfg.Commit(fields); err != nil {
		d.cfg.Log.Warn("the guard is unlocked before that is recorded", "err", err)
	}
	if err := d.cfg.Guard.Unlock(rec.Open.Scopes, rec.Open.Until); err != nil {
		d.rec.Open = before.Open
		return token.Refuse("guard", "sign another one when that is repaired: this one is used up", "the guard could not be unlocked: %v", err)
	}
	d.cfg.Log.Warn("guard unlocked", "scopes", rec.Open.Scopes, "key", rec.Open.Key, "expires", stamp(tok.Expires))
	return nil
}

// refused writes down that a token does not count, and returns why.
func (d *Door) refused(tok *token.Token, key operatorkey.Public, err error) error {
	fields := map[string]any{"result": "refused", "why": err.Error()}
	var e *token.Error
	if errors.As(err, &e) {
		fields["reason"] = e.Reason
	}
	if tok != nil {
		fields["token"], fields["key"], fields["scopes"], fields["host"] = tok.Nonce.String(), tok.Key.String(), tok.Scopes.Words(), tok.Host.String()
	}
	if key.Name != "" {
		fields["name"] = key.Name
	}
	d.cfg.Note(fields)
	return err
}
