package agent

import (
	"context"

	"bailey/update/client"
	"bailey/update/release"
)

// hosts runs products, and the agent itself, for the update client.
type hosts struct {
	products *updateHost
	own      *ownHost
}

var _ client.Host = (*hosts)(nil)

func (h *hosts) of(product string) client.Host {
	if product == release.Agent {
		return h.own
	}
	return h.products
}

// Installed returns what is in force.
func (h *hosts) Installed(id string) (client.Installed, error) { return h.of(id).Installed(id) }

// Plan says what the folder is.
func (h *hosts) Plan(ctx context.Context, id, folder string) (client.Plan, error) {
	return h.of(id).Plan(ctx, id, folder)
}

// Rehearse tries the folder.
func (h *hosts) Rehearse(ctx context.Context, id, folder, name string) (client.Rehearsal, error) {
	return h.of(id).Rehearse(ctx, id, folder, name)
}

// Shadow runs the folder beside what is in force.
func (h *hosts) Shadow(ctx context.Context, id, folder, name string) (func() client.Beside, error) {
	return h.of(id).Shadow(ctx, id, folder, name)
}

// Settle ends what runs beside what is in force.
func (h *hosts) Settle(ctx context.Context, id, name string) error {
	return h.of(id).Settle(ctx, id, name)
}

// Install puts the folder in force.
func (h *hosts) Install(ctx context.Context, id, folder, name string) error {
	return h.of(id).Install(ctx, id, folder, name)
}

// Back puts the release before in force.
func (h *hosts) Back(ctx context.Context, id, name string) error { return h.of(id).Back(ctx, id, name) }

// Watch returns what says which harm a release does.
func (h *hosts) Watch(id, name string) (func() string, error) { return h.of(id).Watch(id, name) }
