// Package updatetest is a repository in memory that can be made to say anything: right, wrong, hostile. Its keys are its own, so an
// attack here has signed whatever its attacker could have signed. Attacks are in attacks_test.go, each with the reason for which the
// client refuses it.
package updatetest
