// Package packaging has tests alone: they build the deb and the rpm as `make package` does, look into both, and install, upgrade, remove and
// purge them in a root directory of their own. They do not start the service: that needs a machine with systemd.
//
// Invariant: nothing outside the test's own directory is installed or changed.
package packaging
