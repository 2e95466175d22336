package incident

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	controlv1 "bailey/api/control/v1"
	"bailey/update/publish"

	"connectrpc.com/connect"
)

// Check Point's certificate, in the repository instead of the product.
//
// Date: 2021-01-01.
// Source: forums.theregister.com, 2021-01-05; the vendor's notice for E81.10 and earlier.
// Shipped: a date. What protected ended with what was to bring the cure.
// Must: G1 G10 G12. What is expired stops new releases and nothing else; signed anew it brings them.
func TestC10ExpiredMetadata(t *testing.T) {
	t.Parallel()
	o := newOffering(t, nil, "c10-01e")
	o.deliver(delivery{ID: "C10-01e", Name: "Check Point endpoint certificate, 2021", Must: "G1 G10 G12", Stops: []string{""},
		Did: "is good, and offered by a repository whose timestamp has expired; later it is signed anew"}, func(a *arrival) {
		a.installs()
		a.vendor.Life = publish.Life{Timestamp: time.Second}
		e := a.content("2026.11.1", goodContent+"prefix /nothing\n", brieflyWatched)
		signed := time.Now()
		a.during(func() {
			a.until("what was signed has expired", 10*time.Second, func() error {
				if age := time.Since(signed); age < 2*time.Second { // a signature's times are whole seconds
					return fmt.Errorf("it is %v old", age)
				}
				return nil
			})
			a.until("the look says that it is expired", 20*time.Second, func() error {
				a.Must("update", "check")
				if p := a.looked(); !strings.Contains(p, "expired") {
					return fmt.Errorf("it says %q", p)
				}
				return nil
			})
			if s := a.Stream(e.stream); s.GetUpdate().GetState() != "" {
				a.errorf("it is %s all the same", s.GetUpdate().GetState())
			}
		})
		a.goesOn()
		a.vendor.Life = publish.Life{}
		a.vendor.Change(func(*publish.Repository) error { return nil })
		a.comesInto(e, "nothing new while it was expired; signed anew, it came")
	})
}

// looked is what was wrong with the newest look at the mirrors.
func (a *arrival) looked() string {
	a.t.Helper()
	r, err := a.Client.UpdateList(context.Background(), connect.NewRequest(&controlv1.UpdateListRequest{}))
	if err != nil {
		a.t.Fatal(err)
	}
	return r.Msg.GetProblem()
}
