#!/bin/sh
# Installs the Debian packages that a verb of the Makefile needs and that are missing; says what it does. It may be run again:
# with nothing missing it does nothing. usage: tools/setup.sh run|test|bench|bench-vm
set -eu

version_at_least() { # have want
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

check_go() {
  command -v go >/dev/null || {
    echo "setup: Go is missing. Install Go 1.26 or newer (https://go.dev/dl), in /usr/local/go or on PATH." >&2
    exit 1
  }
  have=$(go env GOVERSION) want=$(sed -n 's/^go //p' go.mod)
  version_at_least "${have#go}" "$want" || {
    echo "setup: this is Go ${have#go}, and go.mod needs $want or newer. Install it in /usr/local/go or put it first on PATH." >&2
    exit 1
  }
}

# packages lists what each verb needs, one word each.
packages() {
  [ "$1" = bench-vm ] || echo clamav-daemon # the scanner behind products/clamav
  [ "$1" = run ] && return
  if [ "$1" = bench-vm ]; then
    echo qemu-system-x86 xz-utils
  fi
  if [ "$1" = bench ] || [ "$1" = bench-vm ]; then
    echo e2fsprogs libmagic1 liblmdb0 libseccomp2 libcap-ng0 librpm9 librpmio9 libudev1 # fapolicyd's libraries; never its package
    return
  fi
  echo protobuf-compiler clang-14 llvm-14 libbpf-dev # generated code is checked by generating it again
  echo python3 python3-protobuf                     # the example product in Python
  echo rpm perl acl e2fsprogs xz-utils gcc libc6-dev # package databases, attribute events, loop images, the race detector
  echo curl cpio util-linux                          # the control socket from outside, initramfs archives, namespaces
  echo systemd                                      # systemd-analyze reads the unit (test/packaging)
  echo qemu-system-x86 qemu-utils mmdebstrap zstd # test/vm: machines, their disks, what is on them, kernels
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; return; fi
  command -v sudo >/dev/null || {
    echo "setup: needs root to install packages: run it as root, or install sudo" >&2
    exit 1
  }
  sudo "$@"
}

install_missing() {
  echo "setup: installing: $*"
  # Nothing that is installed may start a service: the demo and the tests start their own clamd, and freshclam would need
  # the network.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
  fi
  install="env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends"
  # The package lists are only fetched when the ones at hand do not lead to the packages.
  as_root $install "$@" >"$log" 2>&1 || {
    echo "setup: the package lists are missing or old: apt-get update"
    as_root apt-get update -q >"$log" 2>&1 && as_root $install "$@" >"$log" 2>&1 || {
      tail -n 20 "$log" >&2
      echo "setup: apt-get could not install them: see above" >&2
      exit 1
    }
  }
}

cd "$(dirname "$0")/.."
verb=${1:?usage: tools/setup.sh run|test|bench|bench-vm}
check_go
command -v apt-get >/dev/null || {
  echo "setup: no apt-get here: install these by hand: $(packages "$verb" | tr '\n' ' ')" >&2
  exit 0
}
missing=
for p in $(packages "$verb"); do installed "$p" || missing="$missing $p"; done
[ -n "$missing" ] || exit 0
log=$(mktemp)
install_missing $missing
rm -f "$log"
