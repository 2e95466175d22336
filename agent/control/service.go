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

func (s *service) ProductPlan(ctx context.Context, r *connect.Request[controlv1.ProductPlanRequest]) (*connect.Response[controlv1.ProductPlanResponse], error) {
	if err := checkPath(r.Msg.GetPath()); err != nil {
		return nil, toConnect(err)
	}
	return respond(s.cfg.Products.Plan(ctx, r.Msg.GetPath()))
}

func (s *service) ProductInstall(ctx context.Context, r *connect.Request[controlv1.ProductInstallRequest]) (*connect.Response[controlv1.ProductInstallResponse], error) {
	if err := checkPath(r.Msg.GetPath()); err != nil {
		return nil, toConnect(err)
	}
	if r.Msg.GetApproved() == "" {
		return nil, toConnect(&Fault{Class: Invalid, Message: "approved is empty", Hint: "call ProductPlan, show the operator what it says, and pass its hash"})
	}
	p, err := s.cfg.Products.Install(ctx, r.Msg.GetPath(), r.Msg.GetApproved())
	return respond(&controlv1.ProductInstallResponse{Product: p}, err)
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

// checkName refuses what cannot be a product's name, before it becomes part of any path.
func checkName(name string) error {
	if ok, err := regexp.MatchString(`^[a-z][a-z0-9-]{0,31}$`, name); err != nil || !ok {
		return &Fault{Class: Invalid, Message: fmt.Sprintf("%q is not a product's name", name), Hint: "a name is a lower-case letter and then up to 31 letters, digits and dashes; `bailey product list` shows those installed"}
	}
	return nil
}

func checkPath(path string) error {
	if !filepath.IsAbs(path) {
		return &Fault{Class: Invalid, Message: fmt.Sprintf("%q is not an absolute path", path), Hint: "name the product's folder on the agent's host from the root"}
	}
	return nil
}
