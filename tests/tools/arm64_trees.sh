# shellcheck shell=bash
# Debian trees for arm64 on another machine: one to build in, and one for each release with its Kamailio. Sourced after
# install.sh and roots.sh.

# Beside the roots, not among them: whatever is among them is tested as it is.
ARM64=${ROOTS%/roots}/arm64
BUILD=$ARM64/build
# Static: it runs from this machine, and in any of the trees.
# shellcheck disable=SC2034 # for those who source this
QEMU=$BUILD/usr/bin/qemu-aarch64
# The compiler of trixie is the oldest that the project supports.
BUILD_PACKAGES=(ca-certificates cargo gcc gcc-aarch64-linux-gnu libc6-dev libc6-dev-arm64-cross libclang1-19 rustc)

# make_build_tree: Debian trixie with a cross compiler, and a qemu that runs from this machine as well.
make_build_tree() {
    local uri
    [ -e "$BUILD/.complete" ] && return 0
    uri=$(mirror)
    [ -n "$uri" ] || die "apt knows no Debian mirror for $(codename)"
    as_root rm -rf --one-file-system "$BUILD"
    mkdir -p "$ARM64"
    as_root debootstrap --variant=minbase --include="$(IFS=,; echo "${BUILD_PACKAGES[*]}")" trixie "$BUILD" "$uri"
    as_root chroot "$BUILD" dpkg --add-architecture arm64
    as_root chroot "$BUILD" apt-get -q update
    as_root env DEBIAN_FRONTEND=noninteractive chroot "$BUILD" apt-get -q install -y --no-install-recommends \
        libstd-rust-dev:arm64 qemu-user
    as_root chroot "$BUILD" apt-get clean
    as_root touch "$BUILD/.complete"
}

# make_system RELEASE: the files of an arm64 Debian with its Kamailio, unpacked and not configured.
make_system() {
    local system=$ARM64/$1 uri package
    [ -e "$system/.complete" ] && return 0
    uri=$(mirror)
    mkdir -p "$ARM64"
    as_root rm -rf --one-file-system "$system"
    as_root debootstrap --foreign --arch=arm64 --variant=minbase \
        --include="$(IFS=,; echo "${KAMAILIO[*]}")",netbase "$1" "$system" "$uri" || return 1
    for package in "$system"/var/cache/apt/archives/*.deb; do
        as_root dpkg -x "$package" "$system" || return 1
    done
    as_root rm -rf "$system/var/cache/apt/archives"
    # Test configurations name the module folder of this machine.
    as_root ln -s aarch64-linux-gnu "$system/usr/lib/x86_64-linux-gnu" && as_root touch "$system/.complete"
}
