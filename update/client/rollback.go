package client

import "context"

// rollBack puts the release before in force.
func (c *Client) rollBack(ctx context.Context, j *job) (outcome, error) {
	if err := c.cfg.Host.Back(ctx, j.stream.id.Product, j.update.Release); err != nil {
		return outcome{}, err
	}
	return move(RolledBack, "%s", j.update.Reason), nil
}
