package config

import (
	"bytes"
	"fmt"

	"github.com/pelletier/go-toml/v2"
)

// Print returns c as a commented TOML file that Parse reads back to the same Config.
func Print(c *Config) ([]byte, error) {
	var b bytes.Buffer
	enc := toml.NewEncoder(&b)
	enc.SetArraysMultiline(false)
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	b.WriteString("\n# Never made to wait, besides PID 1 and the platform itself:\n")
	for _, p := range c.NeverAskExecutables() {
		fmt.Fprintf(&b, "#   %s\n", p)
	}
	return b.Bytes(), nil
}
