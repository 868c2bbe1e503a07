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

# python_tool PROGRAM REQUIREMENT HASH...: a program of Python's index that Debian has not, in a folder of its own;
# prints the path of the program. A file that has none of the hashes is refused.
python_tool() {
    local program=$1 requirement=$2 root=${XDG_CACHE_HOME:-$HOME/.cache}/apiban/$1
    shift 2
    local wanted=$requirement${*/#/ --hash=}
    if [ "$(cat "$root/requirement" 2>/dev/null)" != "$wanted" ]; then
        rm -rf "$root"
        mkdir -p "${root%/*}"
        python3 -m venv "$root" || return 1
        echo "$wanted" >"$root/wanted"
        "$root/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
            -r "$root/wanted" || return 1
        mv "$root/wanted" "$root/requirement"
    fi
    echo "$root/bin/$program"
}

# unpacked PACKAGE...: what is in these packages, each in a folder of its own under ~/.cache/apiban/unpacked: without
# the services and users that their installation would make.
unpacked() {
    local root=${XDG_CACHE_HOME:-$HOME/.cache}/apiban/unpacked package new
    mkdir -p "$root"
    for package; do
        [ -e "$root/$package" ] && continue
        # Another run may do the same now: the last one to come finds it done.
        new=$(mktemp -d "$root/.new.XXXXXX") || return 1
        (
            cd "$new" || exit 1
            apt-get -q download "$package" ||
                { as_root apt-get -q update && apt-get -q download "$package"; }
        ) && dpkg-deb -x "$new"/*.deb "$new/tree" &&
            { mv -T "$new/tree" "$root/$package" 2>/dev/null || [ -e "$root/$package" ]; } ||
            { rm -rf "$new"; return 1; }
        rm -rf "$new"
    done
}
