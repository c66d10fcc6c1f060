#!/bin/sh
# Prepares a file system that can share extents, where the machine has none: an XFS image with reflink on a loop device.
# `hypura synth kimi-k2 --unique SIZE` then writes a model of 400 GB that takes little more than SIZE, and yet really reads.
#
#   sudo benchmarks/reflink-image.sh make  IMAGE SIZE FOLDER    create IMAGE (SIZE like 20G; sparse), mount it at FOLDER
#   sudo benchmarks/reflink-image.sh mount IMAGE FOLDER         mount it again, after a restart
#   sudo benchmarks/reflink-image.sh drop  IMAGE FOLDER         unmount it and delete IMAGE
#
# The loop device reads IMAGE by direct I/O, so that nothing of the model lies in the page cache of the file system below.
# Not needed on XFS, btrfs or bcachefs: there, write the model where you are.
set -eu

fail() { echo "reflink-image.sh: $1" >&2; exit 1; }
usage() { sed -n '5,7s/^# *//p' "$0" >&2; exit 2; }

need() {
    command -v "$1" >/dev/null 2>&1 || fail "$1 is missing: install $2"
}

attach() { # IMAGE FOLDER
    device=$(losetup --find --show --direct-io=on -- "$1")
    # The device goes away by itself when the file system is unmounted.
    if ! mount -o noatime -- "$device" "$2"; then
        losetup --detach "$device"
        fail "$1 cannot be mounted at $2"
    fi
    losetup --detach "$device"
    echo "$2: $(df -h --output=fstype,size,avail -- "$2" | tail -n 1), on $device"
}

[ $# -ge 3 ] || usage
[ "$(id -u)" = 0 ] || fail "mounting needs root: run it with sudo"
need losetup util-linux
action=$1 image=$2
case $action in
make)
    [ $# = 4 ] || usage
    size=$3 folder=$4
    need mkfs.xfs xfsprogs
    [ ! -e "$image" ] || fail "$image is there already: drop it first, or choose another name"
    mkdir -p -- "$folder"
    truncate --size "$size" -- "$image"
    mkfs.xfs -q -m reflink=1 "$image" || { rm -f -- "$image"; fail "mkfs.xfs failed"; }
    attach "$image" "$folder"
    ;;
mount)
    [ $# = 3 ] || usage
    [ -f "$image" ] || fail "$image is no file: make it first"
    mkdir -p -- "$3"
    attach "$image" "$3"
    ;;
drop)
    [ $# = 3 ] || usage
    if mountpoint -q -- "$3"; then
        umount -- "$3"
    fi
    rm -f -- "$image"
    ;;
*) usage ;;
esac
