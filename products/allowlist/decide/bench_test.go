package decide

import (
	"context"
	"testing"

	"bailey/products/allowlist/policy"
	"bailey/sdk"
	"bailey/sdk/sdktest"
)

// BenchmarkDecide is what a question about a known program costs beside the transport: look-up, stat, remembered digest.
func BenchmarkDecide(b *testing.B) {
	d, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	if err := d.db.Load(b.Context()); err != nil {
		b.Skip("no package database here")
	}
	p, err := policy.Parse([]byte(packagesOnly))
	if err != nil {
		b.Fatal(err)
	}
	var v policy.Verdict
	answered := make(chan struct{})
	a := sdktest.New(b, sdk.Product{Name: "bench", Questions: []sdk.Kind{sdk.Exec}, Workers: sdk.Inline,
		OnQuestion: func(ctx context.Context, q *sdk.Question) sdk.Answer {
			b.ReportAllocs()
			for b.Loop() {
				f := &facts{d: d, ctx: ctx, q: q}
				v, err = p.Decide(policy.Subject{Path: q.GetFile().GetPath()}, f)
				f.done()
			}
			close(answered)
			return sdk.Allow
		}})
	a.Begin(sdktest.Question{Kind: sdk.Exec, Path: "/usr/bin/dash"})
	<-answered
	if err != nil || !v.FileOnly {
		b.Fatalf("%+v, %v", v, err)
	}
	if got := d.digests.Stats(); got.Reads != 1 {
		b.Errorf("%+v, want one read", got)
	}
}
