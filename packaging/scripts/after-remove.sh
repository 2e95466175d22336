#!/bin/sh
# After the files are gone: a purge takes what was made at run time along.
# deb: remove | purge | upgrade NEW and others. rpm: 0 when it went, 1 when another version has taken its place.
set -eu
case "${1:-}" in
purge)
  rm -rf /var/lib/bailey /run/bailey /etc/bailey
  rm -f /etc/systemd/system/sysinit.target.wants/bailey.service
  ;;
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; then
  systemctl daemon-reload || true
fi
