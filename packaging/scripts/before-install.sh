#!/bin/sh
# Before new files replace old ones: says which token that needs, where the guard would refuse it half-way.
# deb: install | upgrade OLD. rpm: 1 at the first installation, 2 at an upgrade.
set -eu
case "${1:-}" in
upgrade | 2) ;;
*) exit 0 ;;
esac
[ -x /usr/bin/bailey ] || exit 0
code=0
/usr/bin/bailey unlock --check upgrade >/dev/null 2>&1 || code=$?
[ "$code" = 7 ] || exit 0 # unlocked, no guard, no agent, or a version that cannot say: the kernel has the last word
cat >&2 <<'TEXT'
bailey: the guard is locked, and would refuse to have Bailey's files replaced. Unlock it with a token of an operator's:
    bailey operator sign --key KEY --host-id ID --scope upgrade --for 10m      (the operator, elsewhere; the id: bailey operator host)
    bailey unlock --token TOKEN                                                (here)
and start this again.
TEXT
exit 1
