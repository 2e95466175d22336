package control_test

import (
	"context"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"bailey/agent/control"
	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// actions lists the methods that change something.
var actions = []string{
	"ProductInstall", "ProductRehearse", "ProductStart", "ProductStop", "ProductRestart", "ProductRemove", "ProductGrant", "ProductRevoke", "ProductSet",
	"CacheClear", "AgentUpgrade", "BrakeRelease", "Unlock", "Lock", "UpdateCheck", "UpdateSet", "BootGood",
}

// record keeps what Audit was told, in order.
type record struct {
	mu   sync.Mutex
	told []string
	last control.Action
}

func (r *record) audit(act control.Action) func(error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = act
	r.told = append(r.told, "ask "+act.Method)
	return func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		word := "done "
		if err != nil {
			word = "refused "
		}
		r.told = append(r.told, word+act.Method)
	}
}

func (r *record) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.told = nil }()
	return strings.Join(r.told, ", ")
}

// TestEveryMethodIsReadingOrAudited calls each method of the service over plain HTTP. One that is added must be listed here or
// among those that only read: nothing changes in silence.
func TestEveryMethodIsReadingOrAudited(t *testing.T) {
	t.Parallel()
	var r record
	a := run(t, func(c *control.Config) { c.Audit = r.audit })
	isAction := map[string]bool{}
	for _, m := range actions {
		isAction[m] = true
	}
	methods := controlv1.File_api_control_v1_control_proto.Services().Get(0).Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		call(t, a.http, m)
		name, told := string(m.Name()), r.take()
		switch {
		case isAction[name] && !strings.HasPrefix(told, "ask "+name+", "):
			t.Errorf("%s changes something and is told as %q", name, told)
		case !isAction[name] && told != "":
			t.Errorf("%s is told as %q: is it an action? list it here, else in audit.go", name, told)
		}
	}
}

func call(t *testing.T, c *http.Client, m protoreflect.MethodDescriptor) {
	t.Helper()
	kind, body := "application/json", "{}"
	if m.IsStreamingServer() {
		kind, body = "application/connect+json", "\x00\x00\x00\x00\x0b{\"for\":\"1\"}"
		if m.Name() != "Events" {
			body = "\x00\x00\x00\x00\x02{}"
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, controlv1.URL+"/bailey.control.v1.ControlService/"+string(m.Name()), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	out, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for err == nil {
		_, err = out.Body.Read(buf)
	}
	_ = out.Body.Close()
}

// TestAuditKnowsWhoAndWhat: before the action, and after it before the reply.
func TestAuditKnowsWhoAndWhat(t *testing.T) {
	t.Parallel()
	var r record
	a := run(t, func(c *control.Config) { c.Audit = r.audit })
	_, err := a.client.ProductGrant(t.Context(), connect.NewRequest(&controlv1.ProductGrantRequest{Name: "allowlist", Grants: []string{"deny"}}))
	if err == nil {
		t.Fatal("a product that is not installed was granted something")
	}
	if got := r.take(); got != "ask ProductGrant, refused ProductGrant" {
		t.Errorf("told as %q", got)
	}
	if string(r.last.Request) != `{"name":"allowlist","grants":["deny"]}` || r.last.Cut {
		t.Errorf("the request is told as %s", r.last.Request)
	}
	if r.last.PID != uint32(os.Getpid()) || r.last.UID != uint32(os.Geteuid()) {
		t.Errorf("by %+v", r.last)
	}
	if _, err := a.client.CacheClear(t.Context(), connect.NewRequest(&controlv1.CacheClearRequest{})); err != nil {
		t.Fatal(err)
	}
	if got := r.take(); got != "ask CacheClear, done CacheClear" {
		t.Errorf("told as %q", got)
	}
	long := strings.Repeat("ü", 20<<10)
	_, _ = a.client.ProductSet(t.Context(), connect.NewRequest(&controlv1.ProductSetRequest{Name: "x", Settings: map[string]string{"k": long}}))
	if !r.last.Cut || len(r.last.Request) > 16<<10 || !strings.HasSuffix(string(r.last.Request), "ü") {
		t.Errorf("a long request is told with %d bytes", len(r.last.Request))
	}
}

// TestAuditHasNoToken: what unlocks is not written down where others read it.
func TestAuditHasNoToken(t *testing.T) {
	t.Parallel()
	var r record
	a := run(t, func(c *control.Config) { c.Audit = r.audit })
	const token = "baileytoken1secret"
	if _, err := a.client.Unlock(t.Context(), connect.NewRequest(&controlv1.UnlockRequest{Token: token})); err == nil {
		t.Fatal("a machine without a guard was unlocked")
	}
	if told := r.take(); told != "ask Unlock, refused Unlock" {
		t.Errorf("told %q", told)
	}
	if r.mu.Lock(); strings.Contains(string(r.last.Request), "secret") {
		t.Errorf("the journal gets %s", r.last.Request)
	}
	r.mu.Unlock()
	if _, err := a.client.Unlock(t.Context(), connect.NewRequest(&controlv1.UnlockRequest{Token: strings.Repeat("a", 5000)})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a huge token: %v", err)
	}
}

// TestWhatIsNotPermittedIsNotDone: it is refused with its hint, and told.
func TestWhatIsNotPermittedIsNotDone(t *testing.T) {
	t.Parallel()
	var r record
	a := run(t, func(c *control.Config) {
		c.Audit = r.audit
		c.Permit = func(method string) error {
			if method == "AgentUpgrade" {
				return &control.Fault{Class: control.Refused, Message: "the guard is locked", Hint: "unlock it"}
			}
			return nil
		}
	})
	_, err := a.client.AgentUpgrade(t.Context(), connect.NewRequest(&controlv1.AgentUpgradeRequest{Path: "/bin/true"}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "the guard is locked") {
		t.Errorf("got %v", err)
	}
	if told := r.take(); told != "ask AgentUpgrade, refused AgentUpgrade" {
		t.Errorf("told %q", told)
	}
	if n := len(a.Upgraded()); n != 0 {
		t.Error("it was upgraded")
	}
	if _, err := a.client.CacheClear(t.Context(), connect.NewRequest(&controlv1.CacheClearRequest{})); err != nil {
		t.Errorf("what is permitted is refused: %v", err)
	}
}
