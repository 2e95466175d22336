// Package launch starts programs from the processes that answer whether programs may be executed: the agent and its keeper.
//
// Go starts a program by vfork: the thread keeps its processor, and cannot be interrupted, until the child has executed the program. That
// may be a question which the process itself has to answer. If the collector stopped the world meanwhile, it would wait for that thread,
// everybody else for the collector, and nobody would answer.
//
// Invariant: no collection runs while a program is being started.
package launch

import (
	"bytes"
	"os/exec"
	"syscall"

	"bailey/internal/heaplimit"
)

// Start is cmd.Start.
func Start(cmd *exec.Cmd) error {
	defer heaplimit.Hold()()
	return cmd.Start()
}

// Run is cmd.Run.
func Run(cmd *exec.Cmd) error {
	if err := Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Output is cmd.Output; what the program says on its standard error is not kept.
func Output(cmd *exec.Cmd) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout = &out
	err := Run(cmd)
	return out.Bytes(), err
}

// CombinedOutput is cmd.CombinedOutput.
func CombinedOutput(cmd *exec.Cmd) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := Run(cmd)
	return out.Bytes(), err
}

// ForkExec is syscall.ForkExec.
func ForkExec(program string, args []string, attr *syscall.ProcAttr) (pid int, err error) {
	defer heaplimit.Hold()()
	return syscall.ForkExec(program, args, attr)
}
