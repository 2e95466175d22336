package fetch

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"bailey/update/release"
	"bailey/update/trust"
)

// Setup is what a process is told first.
type Setup struct {
	Root    []byte         `json:"root"` // that the agent came with
	Mirrors []trust.Mirror `json:"mirrors"`
	Streams []string       `json:"streams"`
	Built   time.Time      `json:"built,omitzero"`
	Rate    int64          `json:"rate,omitempty"` // bytes a second of a download at most
}

// request is what a process is asked after that, one at a time. It has Get, or is to look.
type request struct {
	Hurry bool          `json:"hurry,omitempty"` // mirrors too that did not answer a moment ago
	Get   *trust.Target `json:"get,omitempty"`
}

// answer is what comes of it.
type answer struct {
	Error    string            `json:"error,omitempty"`
	Class    string            `json:"class,omitempty"`    // a name of classes
	Problems map[string]string `json:"problems,omitempty"` // by stream: why nothing of it is in the mirror
}

// maxLine bounds a line in either direction.
const maxLine = 256 << 10

// classes are the errors that whoever waits for an update has to tell apart.
var classes = map[string]error{
	"unavailable": trust.ErrUnavailable, "slow": trust.ErrSlow, "space": trust.ErrSpace, "not_found": trust.ErrNotFound, "state": trust.ErrState, "expired": trust.ErrExpired,
}

func answerOf(err error) (a answer) {
	if err == nil {
		return a
	}
	a.Error = err.Error()
	for name, class := range classes {
		if errors.Is(err, class) && (a.Class == "" || name < a.Class) {
			a.Class = name
		}
	}
	return a
}

// err is the error that the answer says, of a class that is known or of none.
func (a answer) err() error {
	class, known := classes[a.Class]
	switch {
	case a.Error == "":
		return nil
	case known:
		return &told{text: a.Error, class: class}
	}
	return &told{text: a.Error}
}

// told is an error in the words of the process.
type told struct {
	text  string
	class error
}

func (t *told) Error() string { return t.text }

func (t *told) Unwrap() error { return t.class }

func send(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err == nil && len(line) >= maxLine {
		err = fmt.Errorf("a message of %d bytes", len(line))
	}
	if err == nil {
		_, err = w.Write(append(line, '\n'))
	}
	return err
}

// lines reads messages.
type lines struct{ *bufio.Scanner }

func linesOf(r io.Reader) lines {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	return lines{s}
}

func (l lines) next(v any) error {
	if !l.Scan() {
		return errors.Join(l.Err(), io.EOF)
	}
	return json.Unmarshal(l.Bytes(), v)
}

func parseStreams(texts []string) (out []release.Stream, err error) {
	for _, text := range texts {
		s, err := release.ParseStream(text)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
