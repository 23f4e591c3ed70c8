#!/usr/bin/env bash
# Tries what scripts/archives.sh has packed where nothing else is installed, and prints what it does:
# scripts/try_archives.sh DIST [SUITE] needs root, debootstrap and the network, so continuous integration does not run it.
# In a fresh Debian (bookworm if none is named) the .deb is installed and `ctwds-fs demo` runs; then it is removed, and
# the tarball is unpacked and runs from its folder.
set -euo pipefail

die() { printf 'try_archives: %s\n' "$*" >&2; exit 1; }
say() { printf '\n--- %s\n' "$*"; }

[ $# -ge 1 ] || die "usage: scripts/try_archives.sh DIST [SUITE]"
[ "$(id -u)" -eq 0 ] || die "a new root is made by root alone"
dist=$(realpath "$1")
suite=${2:-bookworm}
PATH=$PATH:/usr/sbin:/sbin
deb=$(echo "$dist"/ctwds-fs_*.deb)
tarball=$(echo "$dist"/ctwds-fs-*.tar.gz)
[ -f "$deb" ] && [ -f "$tarball" ] || die "$dist has not one .deb and one .tar.gz of ctwds-fs; scripts/archives.sh makes them"

root=${TRY_ROOT:-$(mktemp -d)} # TRY_ROOT: a root that is there already, and stays
finish() {
    for point in "$root/dev/fuse" "$root/proc"; do
        if mountpoint -q "$point"; then umount "$point"; fi
    done
    if [ -z "${TRY_ROOT:-}" ]; then rm -rf --one-file-system "$root"; fi
}
trap finish EXIT

if [ ! -x "$root/bin/sh" ]; then
    say "debootstrap $suite: a Debian with nothing but what each one has"
    debootstrap --variant=minbase "$suite" "$root" >/dev/null
fi
mount -t proc proc "$root/proc"
if [ -e /dev/fuse ]; then
    touch "$root/dev/fuse"
    mount --bind /dev/fuse "$root/dev/fuse"
fi
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"; }

say "dpkg -i $(basename "$deb")"
cp "$deb" "$root/ctwds-fs.deb"
inside dpkg -i /ctwds-fs.deb
inside ctwds-fs --version
inside rm -rf /root/demo
inside ctwds-fs demo /root/demo
inside dpkg -L ctwds-fs | grep -E 'man1/ctwds-fs.1|completions' | sed 's/^/  /'
inside dpkg --purge ctwds-fs
if inside sh -c 'command -v ctwds-fs'; then die "the program is still there"; fi

say "tar -xzf $(basename "$tarball")"
rm -rf "$root/opt/ctwds"
mkdir -p "$root/opt/ctwds"
tar -C "$root/opt/ctwds" -xzf "$tarball"
program=/opt/ctwds/$(basename "$tarball" .tar.gz)/bin/ctwds-fs
inside "$program" --version
inside rm -rf /root/demo
inside "$program" demo /root/demo
say "both run in $suite with nothing else installed"
