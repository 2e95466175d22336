package control

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"

	controlv1 "bailey/api/control/v1"
	"bailey/api/control/v1/controlv1connect"

	"connectrpc.com/connect"
)

// service answers the API's unary methods; the streams are in streams.go. It checks what can be checked without the
// backend and translates errors, nothing else.
type service struct {
	cfg   *Config
	slots chan struct{}
}

var _ controlv1connect.ControlServiceHandler = (*service)(nil)

// respond makes the handler's two results of a backend's.
func respond[M any](m *M, err error) (*connect.Response[M], error) {
	if err != nil {
		return nil, toConnect(err)
	}
	return connect.NewResponse(m), nil
}

func (s *service) Status(ctx context.Context, _ *connect.Request[controlv1.StatusRequest]) (*connect.Response[controlv1.StatusResponse], error) {
	return respond(s.cfg.Agent.Status(ctx))
}

func (s *service) Health(ctx context.Context, _ *connect.Request[controlv1.HealthRequest]) (*connect.Response[controlv1.HealthResponse], error) {
	return respond(s.cfg.Agent.Health(ctx))
}

func (s *service) BootGood(ctx context.Context, _ *connect.Request[controlv1.BootGoodRequest]) (*connect.Response[controlv1.BootGoodResponse], error) {
	b, err := s.cfg.Agent.BootGood(ctx)
	return respond(&controlv1.BootGoodResponse{Boot: b}, err)
}

func (s *service) ProductPlan(ctx context.Context, r *connect.Request[controlv1.ProductPlanRequest]) (*connect.Response[controlv1.ProductPlanResponse], error) {
	if err := checkPath(r.Msg.GetPath()); err != nil {
		return nil, toConnect(err)
	}
	return respond(s.cfg.Products.Plan(ctx, r.Msg.GetPath()))
}

func (s *service) ProductInstall(ctx context.Context, r *connect.Request[controlv1.ProductInstallRequest]) (*connect.Response[controlv1.ProductInstallResponse], error) {
	if err := checkApproved(r.Msg.GetPath(), r.Msg.GetApproved()); err != nil {
		return nil, toConnect(err)
	}
	p, err := s.cfg.Products.Install(ctx, r.Msg.GetPath(), r.Msg.GetApproved())
	return respond(&controlv1.ProductInstallResponse{Product: p}, err)
}

// checkApproved checks the arguments of what starts a release.
func checkApproved(path, approved string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	if approved == "" {
		return &Fault{Class: Invalid, Message: "approved is empty", Hint: "call ProductPlan, show the operator what it says, and pass its hash"}
	}
	return nil
}

func (s *service) ProductList(ctx context.Context, _ *connect.Request[controlv1.ProductListRequest]) (*connect.Response[controlv1.ProductListResponse], error) {
	list, err := s.cfg.Products.List(ctx)
	return respond(&controlv1.ProductListResponse{Products: list}, err)
}

// named checks a product's name and calls f with it.
func named(ctx context.Context, name string, f func(context.Context, string) (*controlv1.Product, error)) (*controlv1.Product, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return f(ctx, name)
}

func (s *service) ProductShow(ctx context.Context, r *connect.Request[controlv1.ProductShowRequest]) (*connect.Response[controlv1.ProductShowResponse], error) {
	p, err := named(ctx, r.Msg.GetName(), s.cfg.Products.Show)
	return respond(&controlv1.ProductShowResponse{Product: p}, err)
}

func (s *service) ProductStart(ctx context.Context, r *connect.Request[controlv1.ProductStartRequest]) (*connect.Response[controlv1.ProductStartResponse], error) {
	p, err := named(ctx, r.Msg.GetName(), s.cfg.Products.Start)
	return respond(&controlv1.ProductStartResponse{Product: p}, err)
}

func (s *service) ProductStop(ctx context.Context, r *connect.Request[controlv1.ProductStopRequest]) (*connect.Response[controlv1.ProductStopResponse], error) {
	p, err := named(ctx, r.Msg.GetName(), s.cfg.Products.Stop)
	return respond(&controlv1.ProductStopResponse{Product: p}, err)
}

func (s *service) ProductRestart(ctx context.Context, r *connect.Request[controlv1.ProductRestartRequest]) (*connect.Response[controlv1.ProductRestartResponse], error) {
	p, err := named(ctx, r.Msg.GetName(), s.cfg.Products.Restart)
	return respond(&controlv1.ProductRestartResponse{Product: p}, err)
}

func (s *service) ProductRemove(ctx context.Context, r *connect.Request[controlv1.ProductRemoveRequest]) (*connect.Response[controlv1.ProductRemoveResponse], error) {
	_, err := named(ctx, r.Msg.GetName(), func(ctx context.Context, name string) (*controlv1.Product, error) {
		return nil, s.cfg.Products.Remove(ctx, name)
	})
	return respond(&controlv1.ProductRemoveResponse{}, err)
}

func (s *service) ProductGrant(ctx context.Context, r *connect.Request[controlv1.ProductGrantRequest]) (*connect.Response[controlv1.ProductGrantResponse], error) {
	p, err := s.change(ctx, r.Msg.GetName(), r.Msg.GetGrants(), s.cfg.Products.Grant)
	return respond(&controlv1.ProductGrantResponse{Product: p}, err)
}

func (s *service) ProductRevoke(ctx context.Context, r *connect.Request[controlv1.ProductRevokeRequest]) (*connect.Response[controlv1.ProductRevokeResponse], error) {
	p, err := s.change(ctx, r.Msg.GetName(), r.Msg.GetGrants(), s.cfg.Products.Revoke)
	return respond(&controlv1.ProductRevokeResponse{Product: p}, err)
}

// change checks the arguments of a grant or its revocation.
func (s *service) change(ctx context.Context, name string, grants []string, f func(context.Context, string, []string) (*controlv1.Product, error)) (*controlv1.Product, error) {
	if len(grants) == 0 {
		return nil, &Fault{Class: Invalid, Message: "no grant is named", Hint: "name at least one, e.g. \"deny\" or \"see:exec\""}
	}
	return named(ctx, name, func(ctx context.Context, name string) (*controlv1.Product, error) { return f(ctx, name, grants) })
}

func (s *service) ProductSet(ctx context.Context, r *connect.Request[controlv1.ProductSetRequest]) (*connect.Response[controlv1.ProductSetResponse], error) {
	if len(r.Msg.GetSettings()) == 0 {
		return nil, toConnect(&Fault{Class: Invalid, Message: "no setting is named", Hint: "name at least one KEY=VALUE"})
	}
	p, err := named(ctx, r.Msg.GetName(), func(ctx context.Context, name string) (*controlv1.Product, error) {
		return s.cfg.Products.Set(ctx, name, r.Msg.GetSettings())
	})
	return respond(&controlv1.ProductSetResponse{Product: p}, err)
}

func (s *service) CacheShow(ctx context.Context, _ *connect.Request[controlv1.CacheShowRequest]) (*connect.Response[controlv1.CacheShowResponse], error) {
	c, err := s.cfg.Cache.Show(ctx)
	return respond(&controlv1.CacheShowResponse{Cache: c}, err)
}

func (s *service) CacheClear(ctx context.Context, _ *connect.Request[controlv1.CacheClearRequest]) (*connect.Response[controlv1.CacheClearResponse], error) {
	n, err := s.cfg.Cache.Clear(ctx)
	return respond(&controlv1.CacheClearResponse{Entries: n}, err)
}

func (s *service) BrakeList(ctx context.Context, _ *connect.Request[controlv1.BrakeListRequest]) (*connect.Response[controlv1.BrakeListResponse], error) {
	list, err := s.cfg.Brake.List(ctx)
	return respond(&controlv1.BrakeListResponse{Braked: list}, err)
}

func (s *service) RuleList(ctx context.Context, _ *connect.Request[controlv1.RuleListRequest]) (*connect.Response[controlv1.RuleListResponse], error) {
	list, err := s.cfg.Rules.List(ctx)
	return respond(&controlv1.RuleListResponse{Rules: list}, err)
}

func (s *service) BrakeRelease(ctx context.Context, r *connect.Request[controlv1.BrakeReleaseRequest]) (*connect.Response[controlv1.BrakeReleaseResponse], error) {
	p, err := named(ctx, r.Msg.GetName(), func(ctx context.Context, name string) (*controlv1.Product, error) {
		if _, err := s.cfg.Products.Show(ctx, name); err != nil { // says so when there is no such product
			return nil, err
		}
		if err := s.cfg.Brake.Release(ctx, name); err != nil {
			return nil, err
		}
		return s.cfg.Products.Show(ctx, name)
	})
	return respond(&controlv1.BrakeReleaseResponse{Product: p}, err)
}

// maxToken bounds what is taken for a token: a whole one is far shorter.
const maxToken = 4096

func (s *service) Unlock(ctx context.Context, r *connect.Request[controlv1.UnlockRequest]) (*connect.Response[controlv1.UnlockResponse], error) {
	if n := len(r.Msg.GetToken()); n > maxToken {
		return nil, toConnect(&Fault{Class: Invalid, Message: fmt.Sprintf("this is no token: it has %d bytes", n), Hint: "pass the one line that `bailey operator sign` printed"})
	}
	g, err := s.cfg.Door.Unlock(ctx, r.Msg.GetToken())
	return respond(&controlv1.UnlockResponse{Guard: g}, err)
}

func (s *service) Lock(ctx context.Context, _ *connect.Request[controlv1.LockRequest]) (*connect.Response[controlv1.LockResponse], error) {
	g, err := s.cfg.Door.Lock(ctx)
	return respond(&controlv1.LockResponse{Guard: g}, err)
}

// checkName refuses what cannot be a product's name, before it becomes part of any path.
func checkName(name string) error {
	if ok, err := regexp.MatchString(`^[a-z][a-z0-9-]{0,31}$`, name); err != nil || !ok {
		return &Fault{Class: Invalid, Message: fmt.Sprintf("%q is not a product's name", name), Hint: "a name is a lower-case letter and then up to 31 letters, digits and dashes; `bailey product list` shows those installed"}
	}
	return nil
}

func checkPath(path string) error {
	if !filepath.IsAbs(path) {
		return &Fault{Class: Invalid, Message: fmt.Sprintf("%q is not an absolute path", path), Hint: "name it on the agent's host from the root"}
	}
	return nil
}

// AgentUpgrade has the agent replaced.
func (s *service) AgentUpgrade(ctx context.Context, r *connect.Request[controlv1.AgentUpgradeRequest]) (*connect.Response[controlv1.AgentUpgradeResponse], error) {
	if err := checkPath(r.Msg.GetPath()); err != nil {
		return nil, toConnect(err)
	}
	return respond(&controlv1.AgentUpgradeResponse{}, s.cfg.Agent.Upgrade(ctx, r.Msg.GetPath()))
}

func (s *service) UpdateList(ctx context.Context, _ *connect.Request[controlv1.UpdateListRequest]) (*connect.Response[controlv1.UpdateListResponse], error) {
	return respond(s.cfg.Updates.List(ctx))
}

func (s *service) UpdateCheck(ctx context.Context, _ *connect.Request[controlv1.UpdateCheckRequest]) (*connect.Response[controlv1.UpdateCheckResponse], error) {
	return respond(&controlv1.UpdateCheckResponse{}, s.cfg.Updates.Check(ctx))
}

func (s *service) UpdateSet(ctx context.Context, r *connect.Request[controlv1.UpdateSetRequest]) (*connect.Response[controlv1.UpdateSetResponse], error) {
	st, err := s.cfg.Updates.Set(ctx, r.Msg)
	return respond(&controlv1.UpdateSetResponse{Stream: st}, err)
}

func (s *service) UpdatePlan(ctx context.Context, r *connect.Request[controlv1.UpdatePlanRequest]) (*connect.Response[controlv1.UpdatePlanResponse], error) {
	return respond(s.cfg.Updates.Plan(ctx, r.Msg.GetStream(), r.Msg.GetForce()))
}

// maxMoves is how many moves one request returns.
const maxMoves = 10_000

func (s *service) UpdateHistory(ctx context.Context, r *connect.Request[controlv1.UpdateHistoryRequest]) (*connect.Response[controlv1.UpdateHistoryResponse], error) {
	limit := int(r.Msg.GetLimit())
	if limit == 0 {
		limit = 100
	}
	moves, err := s.cfg.Updates.History(ctx, min(limit, maxMoves))
	return respond(&controlv1.UpdateHistoryResponse{Moves: moves}, err)
}
