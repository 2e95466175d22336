package unit

import (
	"strings"
	"testing"
)

func TestAsks(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		"systemctl stop bailey":                             "stop",
		"systemctl stop bailey.service":                     "stop",
		"systemctl --no-block stop ssh bailey.service":      "stop",
		"systemctl -s KILL kill bailey":                     "kill",
		"systemctl restart bail*":                           "restart",
		"systemctl mask /usr/lib/systemd/bailey.service":    "mask",
		"systemctl set-property bailey MemoryMax=1M":        "set-property",
		"systemctl stop *":                                  "stop",
		"systemctl":                                         "",
		"systemctl status bailey":                           "",
		"systemctl start bailey":                            "",
		"systemctl stop ssh":                                "",
		"systemctl stop bailey-other":                       "",
		"systemctl show -p stop ssh":                        "",
		"systemctl stop [":                                  "",
		"stop bailey":                                       "",
		"busctl call d /p i StopUnit ss bailey.service r":   "StopUnit",
		"busctl call d /p i StopUnit ss ssh.service r":      "",
		"busctl call d /p i GetUnit s bailey.service":       "",
		"busctl call d /o/unit/bailey_2eservice i Stop s r": "Stop",
		"busctl call d /o/unit/ssh_2eservice i Stop s r":    "",
		"dbus-send /p org.freedesktop.systemd1.Manager.KillUnit string:bailey.service string:all int32:9": "KillUnit",
		"gdbus call -o /o/unit/bailey_2eservice -m org.freedesktop.systemd1.Unit.Restart replace":         "Restart",
	} {
		if got := Asks(strings.Fields(command), "bailey.service"); got != want {
			t.Errorf("%s: got %q, want %q", command, got, want)
		}
	}
}
