package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"bailey/test/rig"
)

// freePort is a port of loopback that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return address
}

// TestMetricsOfARunningAgent: both ways to them agree, and what happened is in them.
func TestMetricsOfARunningAgent(t *testing.T) {
	address := freePort(t)
	a := startAgent(t, fmt.Sprintf("[metrics]\nlisten = %q\n", address))
	bad := a.Program("bad")
	a.Install(rig.Spec{Name: "guard", Questions: "exec", Settings: map[string]string{"deny_path": bad}})
	if err := execs(bad); !denied(err) {
		t.Fatalf("exec of %s = %v, want EPERM", bad, err)
	}
	want := []string{
		`bailey_verdicts_total{reason="products",verdict="deny"} 1`,
		`bailey_product_denies_total{product="guard"} 1`,
		`bailey_product_answers_total{outcome="answered",product="guard"} 1`,
		`bailey_product_answer_seconds_count{answer="deny",product="guard"} 1`,
		`bailey_product_authority{authority="live",product="guard"} 1`,
		`bailey_questions_total{kind="exec"} 1`,
		`bailey_process_ring_size_bytes 8.388608e+06`,
		`bailey_lost_total{cause="ring",what="exec_event"} 0`,
		`bailey_file_systems_watched 1`,
		`bailey_braked_products 0`,
		`bailey_journal_failing 0`,
	}
	has := func(text string) error {
		for _, w := range want {
			if !strings.Contains(text, w+"\n") {
				return fmt.Errorf("it lacks %s:\n%s", w, text)
			}
		}
		return nil
	}
	a.Eventually("the command line has them", 20*time.Second, func() error { return has(a.Must("metrics")) })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	a.Eventually("loopback has them", 20*time.Second, func() error {
		r, err := client.Get("http://" + address + "/metrics")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		return errors.Join(err, has(string(text)))
	})
}
