package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"bailey/sdk"
)

// clock is what this product believes the time is: the machine's, moved by the setting clock, which is a duration ("9600h")
// or a year ("1970", "2038", "2100").
type clock struct{ moved time.Duration }

func (c *clock) configure(setting string) error {
	if setting == "" {
		return nil
	}
	if year, err := strconv.Atoi(setting); err == nil {
		c.moved = time.Until(time.Date(year, 1, 19, 3, 14, 8, 0, time.UTC))
		return nil
	}
	d, err := time.ParseDuration(setting)
	if err != nil {
		return fmt.Errorf("read the setting clock: %w", err)
	}
	c.moved = d
	return nil
}

func (c *clock) now() time.Time { return time.Now().Add(c.moved) }

// licence refuses to start once the date of the setting licence_until is over, as driver certificates and licences do.
func (c *clock) licence(set map[string]string) error {
	if set["licence_until"] == "" {
		return nil
	}
	until, err := time.Parse(time.DateOnly, set["licence_until"])
	if err != nil {
		return fmt.Errorf("read the setting licence_until: %w", err)
	}
	if c.now().After(until) {
		return fmt.Errorf("the licence ended on %s, and now it is %s", until.Format(time.DateOnly), c.now().Format(time.DateOnly))
	}
	return nil
}

// extend asks for time by a clock that jumps: until the time that the product believes in.
func (c *clock) extend(how string, q *sdk.Question) {
	if how != "clock" {
		return
	}
	if err := q.Extend(c.moved); err != nil {
		fmt.Fprintln(os.Stderr, "faulty:", err)
	}
}
