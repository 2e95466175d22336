package qemu

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestJudgeSaysWhoIsToBlame(t *testing.T) {
	t.Parallel()
	const panics, stalls, nmi = "[ 1.0] Kernel panic - not syncing: oops\n", "[ 9.0] INFO: task x blocked for more than 120 seconds\n", "[ 9.0] Kernel panic - not syncing: NMI\n"
	for name, tc := range map[string]struct {
		seen evidence
		more string // on the console, once it was asked
		want error
	}{
		"ends":                    {},
		"panics":                  {seen: evidence{console: panics}, want: ErrPanic},
		"panics_and_hangs":        {seen: evidence{console: panics, hung: true, silent: time.Minute, got: 1}, want: ErrPanic},
		"oopses":                  {seen: evidence{console: "[ 9.0] BUG: unable to handle page fault\n"}, want: ErrPanic},
		"hangs_busy":              {seen: evidence{hung: true, lived: true, silent: time.Minute, got: 1.9, waited: 0.3}, more: nmi, want: ErrHang},
		"hangs_idle":              {seen: evidence{hung: true, lived: true, silent: time.Minute, got: 0.01, waited: 0.01}, more: nmi, want: ErrHang},
		"is_stillborn":            {seen: evidence{hung: true, silent: time.Minute, got: 1.3}, more: nmi, want: ErrStillborn},
		"starves":                 {seen: evidence{hung: true, lived: true, silent: time.Minute, got: 0.1, waited: 1.5}, more: nmi, want: ErrStarved},
		"starves_and_complains":   {seen: evidence{console: stalls, hung: true, silent: time.Minute, got: 0.1, waited: 1.5}, want: ErrStarved},
		"a_task_waits_for_ever":   {seen: evidence{console: stalls, got: 0.5, waited: 0.1}, want: ErrPanic},
		"runs_into_its_limit":     {seen: evidence{stopped: context.DeadlineExceeded}, want: context.DeadlineExceeded},
		"starves_to_its_limit":    {seen: evidence{stopped: context.DeadlineExceeded, got: 0.1, waited: 1.5}, want: ErrStarved},
		"panics_and_is_called_in": {seen: evidence{console: panics, stopped: context.Canceled}, want: ErrPanic},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := tc.seen.judge(tc.seen.console + tc.more); !errors.Is(err, tc.want) {
				t.Errorf("judge = %v, want %v", err, tc.want)
			}
		})
	}
}
