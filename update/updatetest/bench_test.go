package updatetest_test

import (
	"fmt"
	"testing"

	"bailey/update/trust"
	"bailey/update/updatetest"
)

// full is a repository whose role of acme has as many targets as it can have.
func full() *updatetest.Repository {
	r := updatetest.New(start)
	for i := range trust.MaxLive - 1 {
		r.Release(acme, fmt.Sprintf("2.%d", i), fmt.Appendf(nil, "bundle %d", i))
	}
	r.Commit()
	return r
}

// BenchmarkLook is what a machine does: a first look, and one without news.
func BenchmarkLook(b *testing.B) {
	r := full()
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			see(b, machine(b, r, r.RootFile(1)))
		}
		b.ReportMetric(float64(len(r.Files["metadata/2."+acme.Role()+".json"])), "role-bytes")
	})
	b.Run("again", func(b *testing.B) {
		c := machine(b, r, r.RootFile(1))
		for b.Loop() {
			see(b, c)
		}
	})
}

func see(b *testing.B, c *trust.Client) {
	b.Helper()
	v, err := c.Refresh(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	if offers, _, err := v.Offers(b.Context(), acme); err != nil || len(offers) != trust.MaxLive {
		b.Fatalf("%d offers, %v", len(offers), err)
	}
}
