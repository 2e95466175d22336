#!/bin/sh
# With the files in place: starts the service, or has the running agent replaced with no gap.
# deb: configure [OLD]. rpm: 1 at the first installation, 2 at an upgrade.
set -eu
case "${1:-}" in
configure) upgrade=${2:-} ;;
1) upgrade= ;;
2) upgrade=yes ;;
*) exit 0 ;; # abort-upgrade and the like: the old files are back, and nothing was stopped
esac

command -v systemctl >/dev/null 2>&1 || {
  echo "bailey: there is no systemd here: start the agent with \`bailey agent\`" >&2
  exit 0
}
# An operator who disabled it does not find it enabled after an upgrade.
[ -n "$upgrade" ] || systemctl enable bailey.service >/dev/null 2>&1 || echo "bailey: the service could not be enabled: systemctl enable bailey" >&2
[ -d /run/systemd/system ] || exit 0 # an image is being made
systemctl daemon-reload || true

start() {
  if command -v deb-systemd-invoke >/dev/null 2>&1; then
    deb-systemd-invoke start bailey.service >/dev/null # asks policy-rc.d
  else
    systemctl start bailey.service
  fi || echo "bailey: the service does not start: see journalctl -u bailey and bailey doctor" >&2
}

if [ -z "$upgrade" ]; then
  start
elif systemctl -q is-active bailey.service; then
  code=0
  /usr/bin/bailey agent upgrade /usr/bin/bailey || code=$?
  [ "$code" = 0 ] || echo "bailey: the old agent goes on (see above). Try again: bailey agent upgrade /usr/bin/bailey" >&2
elif systemctl -q is-enabled bailey.service 2>/dev/null; then
  start
fi
exit 0
