package clamd

import (
	"errors"
	"strings"
	"testing"
)

func TestParseReply(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		reply, want string
		err         error
	}{
		"clean":        {"fd[10]: OK", "", nil},
		"clean_stream": {"stream: OK", "", nil},
		"found":        {"fd[10]: Win.Test.EICAR_HDB-1 FOUND", "Win.Test.EICAR_HDB-1", nil},
		"found_spaces": {"stream: A b: c FOUND", "A b: c", nil},
		"error":        {"fd[10]: Can't allocate memory ERROR", "", ErrScan},
		"limit":        {"INSTREAM size limit exceeded. ERROR", "", ErrTooLarge},
		"refused":      {"No file descriptor received. ERROR", "", errRefused},
		"timeout":      {"COMMAND READ TIMED OUT", "", ErrUnavailable},
		"unknown":      {"UNKNOWN COMMAND", "", ErrProtocol},
		"no_prefix":    {"OK", "", ErrProtocol},
		"no_name":      {"stream:  FOUND", "", ErrProtocol},
		"empty":        {"", "", ErrProtocol},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parseReply(test.reply)
			if got != test.want || !errors.Is(err, test.err) {
				t.Errorf("got %q, %v; want %q, %v", got, err, test.want, test.err)
			}
		})
	}
}

func FuzzParseReply(f *testing.F) {
	for _, seed := range []string{"fd[10]: OK", "stream: X FOUND", "INSTREAM size limit exceeded. ERROR", "stream:  FOUND", ": OK"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, reply string) {
		signature, err := parseReply(reply)
		if err == nil && signature == "" && !strings.HasSuffix(reply, ": OK") {
			t.Errorf("%q passes as clean", reply)
		}
		if err != nil && signature != "" {
			t.Errorf("%q is an error with a signature", reply)
		}
	})
}
