package selftest

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"bailey/sdk"
)

// Names of files in the scratch filesystem that the product treats in its own way.
const (
	knownName   = "known"   // a program that is allowed
	unknownName = "unknown" // a program that is denied
	secretName  = "secret"  // a file whose content is reported
	cachedName  = "cached"  // a file whose verdict may be cached
	lateName    = "late"    // a file that the answer to comes too late
)

// lateBy is how long the product takes for lateName: longer than the deadline and what it is exceeded by on a busy machine.
const lateBy = openDeadline + 2*grace

// secretRule is the rule of the finding that reports a file's content.
const secretRule = "read"

// RunProduct is the self-test's product: what this program does, contained, when it is started with ProductWord.
func RunProduct(ctx context.Context) error {
	return sdk.Run(ctx, sdk.Product{
		Name:       productName,
		Questions:  []sdk.Kind{sdk.Exec, sdk.Open},
		OnQuestion: answer,
	})
}

func answer(_ context.Context, q *sdk.Question) sdk.Answer {
	switch filepath.Base(q.GetFile().GetPath()) {
	case unknownName:
		if q.GetKind() == sdk.Exec {
			return sdk.Deny
		}
	case cachedName:
		return sdk.Allow.CacheFile()
	case lateName:
		<-time.After(lateBy) // not until the context's end, which would be just in time
	case secretName:
		reportContent(q)
	}
	return sdk.Allow
}

// reportContent reads the file through the question's descriptor, and tries to open it by its path, which must fail.
func reportContent(q *sdk.Question) {
	content, err := io.ReadAll(io.NewSectionReader(q.Reader(), 0, 4<<10))
	fields := map[string]string{"content": string(content), "read": fmt.Sprint(err)}
	f, err := os.Open(q.GetFile().GetPath())
	if err == nil {
		_ = f.Close()
	}
	fields["open_by_path"] = fmt.Sprint(err)
	if err := q.Report(sdk.Finding{Rule: secretRule, Title: "read through the descriptor", Severity: sdk.Info, Action: sdk.Detected, Fields: fields}); err != nil {
		fmt.Fprintln(os.Stderr, "report the content:", err)
	}
}
