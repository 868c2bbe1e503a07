# shellcheck shell=bash
# Debian packages by name, for tests/run and examples/demo. Sourced, not run.

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "root is needed for: $* (and there is no sudo)"
    fi
}

# missing ROOT PACKAGE...: those that are not installed in ROOT ("" is this machine).
missing() {
    local root=$1 package
    shift
    for package; do
        [ "$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            echo "$package"
    done
}

# install PACKAGE...: installs on this machine what is missing; touches apt only then.
install() {
    local wanted
    command -v dpkg-query >/dev/null || die "this needs a Debian (bookworm or trixie)"
    mapfile -t wanted < <(missing "" "$@")
    [ ${#wanted[@]} = 0 ] && return 0
    echo "installing: ${wanted[*]}"
    # Debian starts a service as soon as it is installed; a SIP server on all addresses is not what
    # whoever runs the tests asked for.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
        made=yes
    fi
    local failed=
    { as_root apt-get -q update &&
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get -q install -y --no-install-recommends "${wanted[@]}"; } || failed=yes
    [ -z "$made" ] || as_root rm -f $policy
    [ -z "$failed" ] || die "apt-get could not install: ${wanted[*]}"
}
