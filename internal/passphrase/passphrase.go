// Package passphrase gets a passphrase from the operator: typed on the terminal, which does not show it, or from a file.
//
// Invariant: however it ends, the terminal shows again what is typed.
package passphrase

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxSecret bounds a passphrase.
const maxSecret = 1024

// Error is a mistake of the operator's, with what to do about it.
type Error struct{ message, hint string }

func (e *Error) Error() string { return e.message }

// Hint says what to do about it; it may be empty.
func (e *Error) Hint() string { return e.hint }

// Read gets a passphrase from the file, if one is named, or else from the terminal, where it is not shown; twice if it is new. The prompt says
// what it is for, and may be empty.
func Read(ctx context.Context, prompt, file string, twice bool) ([]byte, error) {
	if file != "" {
		return secretFile(file)
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, &Error{"there is no terminal to ask for the passphrase on", "name a file that holds it with --passphrase-file"}
	}
	defer tty.Close()
	if prompt != "" {
		prompt = " " + prompt
	}
	first, err := secret(ctx, tty, "Passphrase"+prompt+": ")
	if err != nil || !twice {
		return first, err
	}
	second, err := secret(ctx, tty, "Once more: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, &Error{"the two passphrases differ", "try again"}
	}
	return first, nil
}

// secretFile reads the first line of a file.
func secretFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+2))
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 || len(line) > maxSecret {
		return nil, &Error{fmt.Sprintf("the first line of %s is no passphrase: it has %d bytes", path, len(line)), fmt.Sprintf("write one of up to %d bytes there", maxSecret)}
	}
	return line, nil
}

// secret reads one line from a terminal that does not show it meanwhile, and shows again what is typed however it ends.
func secret(ctx context.Context, tty *os.File, prompt string) ([]byte, error) {
	was, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("ask for the passphrase: %w", err)
	}
	hidden := *was
	hidden.Lflag = hidden.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETSF, &hidden); err != nil {
		return nil, fmt.Errorf("hide the passphrase: %w", err)
	}
	defer func() {
		_ = unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, was)
		fmt.Fprintln(tty)
	}()
	fmt.Fprint(tty, prompt)
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() { // it ends with the line, or with the program
		buf := make([]byte, maxSecret+1)
		n, err := tty.Read(buf)
		read <- line{buf[:n], err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case l := <-read:
		if l.err != nil && !errors.Is(l.err, io.EOF) {
			return nil, fmt.Errorf("read the passphrase: %w", l.err)
		}
		text := bytes.TrimRight(l.text, "\r\n")
		if len(text) == 0 || len(text) > maxSecret {
			return nil, &Error{"no passphrase was given", ""}
		}
		return text, nil
	}
}
