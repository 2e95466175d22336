package trust

import (
	"context"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// maxVisited bounds a search through delegations.
const maxVisited = 32

// Find returns the target at a path, from the first role in the order of delegations that has it: what the specification calls a pre-order
// depth-first search. Under the house rules no two roles can have one path, and Offers is what agents use.
func (v *View) Find(ctx context.Context, path string) (Target, error) {
	type step struct{ role, delegator string }
	todo := []step{{metadata.TARGETS, metadata.ROOT}}
	visited := map[string]bool{}
	for len(todo) > 0 && len(visited) < maxVisited {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if visited[at.role] {
			continue
		}
		visited[at.role] = true
		if err := v.look.role(ctx, at.role, at.delegator); err != nil {
			return Target{}, err
		}
		signed := &v.look.trusted.Targets[at.role].Signed
		if t := signed.Targets[path]; t != nil {
			if len(t.Hashes["sha256"]) == 0 {
				return Target{}, refuse(path, ErrMalformed, "it has no sha256")
			}
			return targetOf(at.role, path, t), nil
		}
		if signed.Delegations == nil {
			continue
		}
		var below []step
		for _, r := range signed.Delegations.GetRolesForTarget(path) {
			below = append(below, step{r.Name, at.role})
			if r.Terminating {
				todo = nil
				break
			}
		}
		slices.Reverse(below)
		todo = append(todo, below...)
	}
	return Target{}, refuse(path, ErrNotFound, "no role that may sign it has it")
}
