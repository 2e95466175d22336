// Package sdnotify tells the service manager that started this process how it fares, as sd_notify(3) describes: datagrams of
// VARIABLE=VALUE lines to the socket in $NOTIFY_SOCKET. It reads no unit and asks the service manager nothing.
//
// Invariant: nobody waits for the service manager: what it does not take within sendPatience is not said.
package sdnotify

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// What can be said.
const (
	Ready    = "READY=1"    // started; units that are ordered after this one go on
	Stopping = "STOPPING=1" // it ends because it was told to
	Alive    = "WATCHDOG=1" // within each WatchdogSec, or the service is killed and started again
)

// Status is one line for people, as `systemctl status` shows it.
func Status(text string) string {
	return "STATUS=" + strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, text)
}

// sendPatience is how long a full socket of the service manager is waited for.
const sendPatience = 100 * time.Millisecond

// Notifier speaks to the service manager. A nil one says nothing to nobody. Safe for concurrent use.
type Notifier struct {
	path     string
	watchdog time.Duration
}

// Variables are those that the service manager sets. Children must not have them: they would speak for their parent.
func Variables() []string { return []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} }

// New returns the notifier of the environment's service manager, nil where there is none. pid is this process.
func New(getenv func(string) string, pid int) *Notifier {
	path := getenv("NOTIFY_SOCKET")
	if path == "" || path[0] != '/' && path[0] != '@' {
		return nil
	}
	n := &Notifier{path: path}
	if who := getenv("WATCHDOG_PID"); who == "" || who == strconv.Itoa(pid) {
		if us, err := strconv.ParseUint(getenv("WATCHDOG_USEC"), 10, 63); err == nil && us > 0 && us < uint64(24*time.Hour/time.Microsecond) {
			n.watchdog = time.Duration(us) * time.Microsecond
		}
	}
	return n
}

// Watchdog returns within which time Alive must be said again and again, 0 when nobody expects it.
func (n *Notifier) Watchdog() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog
}

// Say sends the lines as one message.
func (n *Notifier) Say(lines ...string) error {
	if n == nil {
		return nil
	}
	// Go writes an abstract address, which begins with a zero byte, as systemd does: with @.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("reach the service manager: %w", err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetWriteDeadline(time.Now().Add(sendPatience)); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	if _, err := c.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}
