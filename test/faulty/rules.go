package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"bailey/sdk"
)

// installRules installs the rules of a setting, "ID ACTION LEASE [file=PATH] [below=PATH] [destination=BLOCK]; …", and tells what came
// of each as a finding "rule_reply".
func (b *behaviour) installRules(list string) {
	for text := range strings.SplitSeq(list, ";") {
		words := strings.Fields(text)
		if len(words) < 3 {
			continue
		}
		r := sdk.Rule{ID: words[0], Action: words[1], Match: new(sdk.RuleMatch)}
		r.Lease, _ = time.ParseDuration(words[2]) // 0 is refused
		for _, w := range words[3:] {
			key, value, _ := strings.Cut(w, "=")
			switch key {
			case "file":
				r.Match.File = value
			case "below":
				r.Match.Below = value
			case "destination":
				r.Match.Destination = value
			}
		}
		_, err := b.session.InstallRule(context.Background(), r)
		fields := map[string]string{"id": r.ID, "error": "", "reason": ""}
		var refused *sdk.RuleError
		switch {
		case errors.As(err, &refused):
			fields["error"], fields["reason"] = refused.Class, refused.Reason
		case err != nil:
			fields["error"], fields["reason"] = "failed", fmt.Sprint(err)
		}
		b.finding("rule_reply", fields)
	}
}
