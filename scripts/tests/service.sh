#!/bin/sh
# The systemd unit gives up what a server does not need: an exposure of at most 2.5 by systemd's own count. Skipped where
# there is no systemd that can judge files.
set -eu
cd "$(dirname "$0")/../.."
unit=assets/service/hypura.service
if ! systemd-analyze security --help 2>/dev/null | grep -q -- --offline; then
    echo "service: skipped, no systemd that judges files"
    exit 0
fi
systemd-analyze security --offline=true --threshold=25 --no-pager "$unit" >/dev/null || {
    systemd-analyze security --offline=true --no-pager "$unit" | tail -1
    exit 1
}
echo "service: the unit is hardened"
