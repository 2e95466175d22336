package client

import (
	"context"
	"strings"
)

// wants says what the operator is asked for.
func (c *Client) wants(asks []string) string {
	if len(asks) == 0 {
		return "every release waits for the operator's word here"
	}
	return "it asks for more than it may: " + strings.Join(asks, ", ")
}

// approve waits for the operator.
func (c *Client) approve(_ context.Context, j *job) (outcome, error) {
	if j.update.Approved {
		return move(Rehearse, "the operator approved it"), nil
	}
	return outcome{reason: c.wants(j.update.Asks)}, nil
}
