package main

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// clamdSocket is where Debian's clamd listens, and what the clamav product's manifest asks for.
const clamdSocket = "/run/clamav/clamd.ctl"

// eicar returns the test file that every scanner detects (eicar.org), put together so that this file is not one.
func eicar() string {
	return `X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-` + `ANTIVIRUS-TEST-FILE!$H+H*`
}

// startClamd uses the machine's clamd if one runs, and starts one otherwise: with the machine's signatures if it has any,
// and with one of its own, for the EICAR test file, if not.
func (d *demo) startClamd(ctx context.Context) error {
	if pingClamd() == nil {
		fmt.Println("run: using the clamd that runs already")
		return nil
	}
	program, err := exec.LookPath("clamd")
	if err != nil {
		return errors.New("clamd is missing: run `make run`, which installs it")
	}
	dir := filepath.Join(d.o.dir, "clamd")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	database, err := signatures(dir)
	if err != nil {
		return err
	}
	if err := d.makeSocketDir(); err != nil {
		return err
	}
	config := fmt.Sprintf("Foreground yes\nLocalSocket %s\nLocalSocketMode 666\nFixStaleSocket yes\nUser root\nDatabaseDirectory %s\nTemporaryDirectory %s\nMaxThreads 4\n", clamdSocket, database, dir)
	file := filepath.Join(dir, "clamd.conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return err
	}
	c, err := startChild(filepath.Join(dir, "log"), program, "--config-file="+file)
	if err != nil {
		return err
	}
	d.later(func() error { return endChild(c, program, 10*time.Second) })
	return c.Await(ctx, 2*time.Minute, pingClamd) // the official signatures take a while
}

// makeSocketDir makes the socket's directory and removes it at the end if it was not there.
func (d *demo) makeSocketDir() error {
	dir := filepath.Dir(clamdSocket)
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		d.later(func() error { _ = os.Remove(clamdSocket); return nil })
		return nil
	}
	d.later(func() error { return os.RemoveAll(dir) })
	return err
}

// signatures returns the directory of the machine's signatures, or one with a signature for the EICAR test file.
func signatures(dir string) (string, error) {
	const system = "/var/lib/clamav"
	for _, pattern := range []string{"*.cvd", "*.cld"} {
		if found, err := filepath.Glob(filepath.Join(system, pattern)); err == nil && len(found) > 0 {
			return system, nil
		}
	}
	own := filepath.Join(dir, "signatures")
	if err := os.Mkdir(own, 0o755); err != nil {
		return "", err
	}
	line := fmt.Sprintf("%x:%d:Bailey.Demo.Eicar\n", md5.Sum([]byte(eicar())), len(eicar()))
	return own, os.WriteFile(filepath.Join(own, "demo.hdb"), []byte(line), 0o644)
}

// pingClamd fails unless a clamd answers.
func pingClamd() error {
	c, err := net.DialTimeout("unix", clamdSocket, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("zPING\x00")); err != nil {
		return err
	}
	buf := make([]byte, 16)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	if string(buf[:n]) != "PONG\x00" {
		return fmt.Errorf("clamd answered %q", buf[:n])
	}
	return nil
}
