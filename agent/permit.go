package agent

import (
	"strings"

	"bailey/agent/control"
	"bailey/agent/unlock/token"
)

// permit says which methods of the control API need a token while the guard is active. To replace the agent is to end it, and who
// answers afterwards is whoever was named: that always does. Products are changed by root at three in the morning, when one of
// them harms the machine, and by an attacker who is root: which of them counts is the operator's to say ([operator] seal).
// Lock and Unlock need none, and forgetting verdicts lets nothing through.
func (a *Agent) permit(method string) error {
	scope := ""
	switch {
	case method == "AgentUpgrade":
		scope = token.Upgrade.String()
	case a.cfg.Operator.Seal && (strings.HasPrefix(method, "Product") || method == "BrakeRelease"):
		scope = token.State.String()
	}
	if scope == "" || a.door.Allows(scope) {
		return nil
	}
	return &control.Fault{
		Class: control.Refused, Message: "the guard is locked, and this needs a token of the scope " + scope,
		Hint: "`bailey operator sign --scope " + scope + "`, then `bailey unlock`",
	}
}
