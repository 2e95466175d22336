package token

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Host names one machine without telling its machine id, which systemd asks to keep to the machine (machine-id(5)). The zero
// Host is every machine.
type Host [16]byte

// Any reports whether h is every machine.
func (h Host) Any() bool { return h == Host{} }

// hostPrefix makes the digest this program's own.
const hostPrefix = "bailey host 1\n"

// MachineIDPath is where a machine's id is (machine-id(5)).
const MachineIDPath = "/etc/machine-id"

// HostOf returns the name of the machine with this machine id, 32 lower-case hexadecimal characters.
func HostOf(machineID string) (h Host, err error) {
	id := strings.TrimSpace(machineID)
	if ok, merr := regexp.MatchString(`^[0-9a-f]{32}$`, id); merr != nil || !ok || strings.Trim(id, "0") == "" {
		return h, fmt.Errorf("%q is no machine id: it is 32 lower-case hexadecimal characters, as in %s", id, MachineIDPath)
	}
	sum := sha256.Sum256([]byte(hostPrefix + id))
	copy(h[:], sum[:])
	return h, nil
}

// ThisHost returns the name of this machine.
func ThisHost() (Host, error) {
	text, err := os.ReadFile(MachineIDPath)
	if err != nil {
		return Host{}, fmt.Errorf("read this machine's id: %w", err)
	}
	h, err := HostOf(string(text))
	if err != nil {
		return Host{}, fmt.Errorf("read this machine's id in %s: %w", MachineIDPath, err)
	}
	return h, nil
}

// String returns the host in lower-case hex, or "*" for every host.
func (h Host) String() string {
	if h.Any() {
		return "*"
	}
	return hex.EncodeToString(h[:])
}

// ParseHost reads what String writes for one host, and nothing else.
func ParseHost(s string) (h Host, err error) {
	if err := parseHex(h[:], s); err != nil {
		return Host{}, fmt.Errorf("%q is no host id, which `bailey operator host` prints: %w", s, err)
	}
	if h.Any() {
		return Host{}, fmt.Errorf("%q is no host id", s)
	}
	return h, nil
}
