package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"

	"bailey/update/release"
	"bailey/update/trust"
)

// Serve is the life of the process: it does in dir what it is asked for through conn, until that is closed.
func Serve(ctx context.Context, conn io.ReadWriter, dir string) error {
	in := linesOf(conn)
	var s Setup
	if err := in.next(&s); err != nil {
		return fmt.Errorf("hear what to follow: %w", err)
	}
	streams, err := parseStreams(s.Streams)
	if err != nil {
		return err
	}
	client, err := trust.New(trust.Config{
		Dir: filepath.Join(dir, "trust"), Root: s.Root, Mirrors: s.Mirrors, Built: s.Built, Pace: trust.Pace{Rate: s.Rate},
	})
	if err != nil {
		return err
	}
	f := &fetcher{dir: dir, client: client, streams: streams}
	defer f.forget()
	for {
		var r request
		if err := in.next(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := send(conn, f.do(ctx, &r)); err != nil {
			return err
		}
	}
}

// fetcher is the process with what it saw last.
type fetcher struct {
	dir     string
	client  *trust.Client
	streams []release.Stream
	view    *trust.View // nil: none
}

func (f *fetcher) forget() {
	if f.view != nil {
		f.view.Close()
		f.view = nil
	}
}

func (f *fetcher) do(ctx context.Context, r *request) answer {
	if r.Get == nil {
		return f.look(ctx, r.Hurry)
	}
	if f.view == nil {
		return answerOf(errors.New("nothing was looked at yet"))
	}
	return answerOf(f.view.MirrorTarget(ctx, *r.Get, f.dir))
}

// look makes dir the mirror of what the mirrors say now.
func (f *fetcher) look(ctx context.Context, hurry bool) answer {
	f.forget()
	if hurry {
		f.client.Hurry()
	}
	v, err := f.client.Refresh(ctx)
	if err != nil {
		return answerOf(err)
	}
	f.view = v
	problems := map[string]string{}
	for _, s := range f.streams {
		if _, _, err := v.Offers(ctx, s); err != nil { // that stream's alone
			problems[s.String()] = err.Error()
		}
	}
	a := answerOf(v.Mirror(ctx, f.dir))
	if a.Problems = problems; len(problems) == 0 {
		a.Problems = nil
	}
	return bounded(a)
}

// bounded leaves out what would not go into one line.
func bounded(a answer) answer {
	const most = maxLine / 8 // of text, which JSON can make six times as long
	cut := func(s string, n int) string { return s[:min(len(s), n)] }
	a.Error = cut(a.Error, most/2)
	each := most / 2 / max(len(a.Problems), 1)
	for _, s := range slices.Collect(maps.Keys(a.Problems)) {
		a.Problems[s] = cut(a.Problems[s], each)
	}
	return a
}
