#!/bin/sh
# Before the files go: stops the service, if that is allowed.
# deb: remove | upgrade NEW | deconfigure. rpm: 0 when it goes, 1 when another version has taken its place.
set -eu
case "${1:-}" in
remove | 0) ;;
*) exit 0 ;;
esac
code=0
if [ -x /usr/bin/bailey ]; then
  /usr/bin/bailey unlock --check stop --check upgrade --check config --check state >/dev/null 2>&1 || code=$?
fi
if [ "$code" = 7 ]; then
  cat >&2 <<'TEXT'
bailey: the guard is locked, and refuses that Bailey is stopped and removed. Unlock it with a token of an operator's:
    bailey operator sign --key KEY --host-id ID --scope stop,upgrade,config,state --for 10m   (the operator, elsewhere)
    bailey unlock --token TOKEN                                                               (here)
and start this again.
TEXT
  exit 1
fi
command -v systemctl >/dev/null 2>&1 || exit 0
if [ -d /run/systemd/system ]; then
  # Nobody stops it by hand; this is how the package does.
  dir=/run/systemd/system/bailey.service.d
  mkdir -p "$dir"
  printf '[Unit]\nRefuseManualStop=no\n' >"$dir/removal.conf"
  systemctl daemon-reload || true
  systemctl stop bailey.service || stopped=no
  rm -rf "$dir"
  systemctl daemon-reload || true
  [ "${stopped:-}" != no ] || {
    echo "bailey: the service does not stop: see systemctl status bailey" >&2
    exit 1
  }
fi
# dpkg keeps the enablement with the configuration, until the purge.
[ "$1" != 0 ] || systemctl disable bailey.service >/dev/null 2>&1 || true
