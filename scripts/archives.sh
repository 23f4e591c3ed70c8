#!/usr/bin/env bash
# Packs a program that is built already for machines without pip: scripts/archives.sh PROGRAM OUT makes
# OUT/ctwds-fs-VERSION-linux-MACHINE.tar.gz, a folder to unpack anywhere (below ~/.local, say), and
# OUT/ctwds-fs_VERSION_ARCHITECTURE.deb; both with the manual pages, and the completions of bash, zsh and fish, which the
# program itself makes; with the pages; and with the loader as one file, as the Python package is in neither.
# scripts/package.sh calls it with the program of the wheel, which runs with glibc 2.17 or newer.
set -euo pipefail

readonly GLIBC=2.17
die() { printf 'archives: %s\n' "$*" >&2; exit 1; }

[ $# -eq 2 ] || die "usage: scripts/archives.sh PROGRAM OUT"
program=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$("$program" --version | cut -d ' ' -f 2)
machine=$(uname -m)
name=ctwds-fs-$version-linux-$machine
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022

# share FOLDER: what stands in share/ of both.
share() {
    mkdir -p "$1"/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
    "$program" completions bash >"$1/bash-completion/completions/ctwds-fs"
    "$program" completions zsh >"$1/zsh/site-functions/_ctwds-fs"
    "$program" completions fish >"$1/fish/vendor_completions.d/ctwds-fs.fish"
    "$program" man "$1/man/man1" >/dev/null
    chmod 644 "$1"/man/man1/*
    gzip -9n "$1"/man/man1/*
}

# pages FOLDER: what the README links to stands beside it.
pages() {
    cp -r README.md README.zh-CN.md CHANGELOG.md CONTRIBUTING.md LICENSE-MIT LICENSE-APACHE docs contrib findings "$1"
    install -Dm 644 -t "$1/scripts" scripts/ctreport_webdataset.py scripts/packed_volume.py
    rm -f "$1"/contrib/*.whl # of a user who builds the image in the clone
    chmod -R u=rwX,go=rX "$1"
}

# The same inputs give the same bytes: names are sorted, times are that of the last commit, or those of the caller.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}

install -Dm 755 "$program" "$work/$name/bin/ctwds-fs"
share "$work/$name/share"
pages "$work/$name"
tar --directory "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
    --create "$name" | gzip -9n >"$out/$name.tar.gz"
printf 'archives: %s, %s bytes\n' "$out/$name.tar.gz" "$(stat -c %s "$out/$name.tar.gz")"

command -v dpkg-deb >/dev/null || { printf 'archives: no .deb, as there is no dpkg-deb\n'; exit 0; }
architecture=$(dpkg --print-architecture)
root=$work/deb
install -Dm 755 "$program" "$root/usr/bin/ctwds-fs"
share "$root/usr/share"
mkdir "$root/usr/share/zsh/vendor-completions"
mv "$root/usr/share/zsh/site-functions/_ctwds-fs" "$root/usr/share/zsh/vendor-completions" # where Debian's zsh looks
rmdir "$root/usr/share/zsh/site-functions"
mkdir -p "$root/usr/share/doc/ctwds-fs" "$root/DEBIAN"
pages "$root/usr/share/doc/ctwds-fs"
{
    printf 'ctwds-fs is licensed under the MIT licence or the Apache licence 2.0, as you prefer.\n\n'
    cat LICENSE-MIT LICENSE-APACHE
} >"$root/usr/share/doc/ctwds-fs/copyright"
cat >"$root/DEBIAN/control" <<CONTROL
Package: ctwds-fs
Version: $version
Architecture: $architecture
Maintainer: the ctwds-fs authors <ctwds-fs@localhost>
Installed-Size: $(du -sk "$root/usr" | cut -f 1)
Depends: libc6 (>= $GLIBC)
Recommends: fuse3
Section: science
Priority: optional
Description: CT volumes in NPZ, NPY and NIfTI files as WebDataset shards
 Mounts folders of CT volumes and tables of reports, metadata and labels as tar
 files that are made on demand, or writes the same bytes to disk.
 .
 Users without root need fuse3 to mount; all else works without it.
CONTROL
dpkg-deb --root-owner-group --build "$root" "$out/ctwds-fs_${version}_$architecture.deb" >/dev/null
printf 'archives: %s, %s bytes\n' "$out/ctwds-fs_${version}_$architecture.deb" \
    "$(stat -c %s "$out/ctwds-fs_${version}_$architecture.deb")"
