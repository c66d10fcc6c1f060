#!/bin/sh
# A Debian package in a Debian that has nothing but its base system: installed by one command, the demo model's first
# answer, the service's files, and that purging leaves nothing. As root, with debootstrap and the network.
#
# Usage: chroot.sh PACKAGE [SUITE]   SUITE is bookworm unless given; BASE=DIR keeps the base system there for the next time
set -eu

package=$(cd "$(dirname "$1")" && pwd)/${1##*/}
suite=${2:-bookworm}
# shellcheck source=scripts/tests/checks.sh
. "$(dirname "$0")/checks.sh"
base=${BASE:-$work/base}
root=$work/root
trap 'umount "$root/proc" 2>/dev/null || true; rm -rf "$work"' EXIT

inside() { chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }

# Everything that is a file, but for what apt, dpkg and adduser note of their own work.
files() {
    (cd "$root" && find . -xdev -path ./proc -prune -o \
        \( -path ./var/lib/apt -o -path ./var/cache -o -path ./var/log -o -path ./var/lib/dpkg -o -path ./run -o -path ./tmp -o -path ./root \) \
        -prune -o -print) | LC_ALL=C sort
}

if [ ! -e "$base/bin/sh" ]; then
    debootstrap --variant=minbase "$suite" "$base" >"$work/out" 2>&1 || {
        tail -n 5 "$work/out" >&2
        exit 1
    }
fi
cp -a "$base" "$root"
mount -t proc proc "$root/proc"
inside apt-get -qq update
files >"$work/before"
cp "$package" "$root/tmp/hypura.deb"

start=$(date +%s)
inside sh -c 'apt-get -qq install -y --no-install-recommends /tmp/hypura.deb && hypura run demo --temperature 0 "What is a lynx?"' \
    >"$work/answer" 2>&1 || true
seconds=$(($(date +%s) - start))
check grep 'A lynx is a kind of wildcat' "$work/answer"
check test "$seconds" -le 60
echo "chroot: the first answer came $seconds s after the installation began"

check inside hypura doctor
check inside dpkg --verify hypura
check inside getent passwd hypura
check test -f "$root/lib/systemd/system/hypura.service"
check test ! -e "$root/etc/systemd/system/multi-user.target.wants/hypura.service"
# The user of the service can use the program, and its own folders alone.
inside install -d -o hypura -g hypura -m 700 /var/lib/hypura /var/cache/hypura
check inside setpriv --reuid hypura --regid hypura --clear-groups \
    env HYPURA_MODELS=/var/lib/hypura/models XDG_CACHE_HOME=/var/cache/hypura hypura list
echo changed >>"$root/etc/default/hypura"
check inside dpkg --remove hypura
check test -f "$root/etc/default/hypura"
check inside apt-get -qq install -y --no-install-recommends /tmp/hypura.deb
check grep changed "$root/etc/default/hypura"
check inside apt-get -qq purge -y --autoremove hypura
check test ! -e "$root/etc/default/hypura"
check test ! -e "$root/var/lib/hypura"
check test -z "$(grep hypura "$root/etc/passwd" "$root/etc/group" "$root/etc/shadow" "$root/etc/gshadow")"
files >"$work/after"
# Dependencies may stay, and backups that the system's own tools make of the list of users, which end in a dash.
sed 's|^/|./|' "$root"/var/lib/dpkg/info/*.list | LC_ALL=C sort -u >"$work/owned"
LC_ALL=C comm -13 "$work/before" "$work/after" | LC_ALL=C comm -23 - "$work/owned" | grep -v -- '-$' >"$work/left" || true
check diff /dev/null "$work/left"

# With systemd: the unit is one, and is enabled by whoever wants it alone.
check inside apt-get -qq install -y --no-install-recommends systemd /tmp/hypura.deb
check systemd-analyze verify --man=no --root="$root" hypura.service
wanted=$root/etc/systemd/system/multi-user.target.wants/hypura.service
check test ! -e "$wanted"
check inside systemctl enable hypura.service
check test -h "$wanted"
check inside apt-get -qq purge -y hypura
check test ! -h "$wanted"

[ "$failures" -eq 0 ] || exit 1
echo "chroot: all checks passed"
