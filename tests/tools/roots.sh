# shellcheck shell=bash
# Root directories with a minimal Debian and its Kamailio, one for each release. Sourced after install.sh.

KAMAILIO=(kamailio kamailio-extra-modules kamailio-lua-modules kamailio-tls-modules kamailio-utils-modules)
# shellcheck disable=SC2034 # for those who source this
RELEASES=(bookworm trixie sid)
ROOTS=${XDG_CACHE_HOME:-$HOME/.cache}/apiban/roots

# The mirror that this machine's own packages come from.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' \
        "Codename: $(codename)" | head -n 1
}

codename() {
    (. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")
}

# make_root RELEASE: a minimal Debian with its Kamailio. It takes its name only when it is complete.
make_root() {
    local release=$1 root=$ROOTS/$1 uri partial=$ROOTS/$1.partial
    [ -e "$root" ] && [ -z "$(missing "$root" "${KAMAILIO[@]}")" ] && return 0
    uri=$(mirror)
    [ -n "$uri" ] || { echo "apt knows no Debian mirror for $(codename)"; return 1; }
    mkdir -p "$ROOTS" || return 1
    (
        flock 9 || exit 1
        # Another run may have made it while this one waited.
        [ -e "$root" ] && [ -z "$(missing "$root" "${KAMAILIO[@]}")" ] && exit 0
        echo "making $root from $uri"
        # A namespace of its own: whatever debootstrap mounts goes when it ends.
        as_root unshare --mount --propagation private bash -euc '
            release=$1 root=$2 partial=$3 uri=$4
            shift 4
            rm -rf --one-file-system "$partial"
            debootstrap --variant=minbase "$release" "$partial" "$uri"
            printf "#!/bin/sh\nexit 101\n" >"$partial/usr/sbin/policy-rc.d"
            chmod 755 "$partial/usr/sbin/policy-rc.d"
            mountpoint -q "$partial/proc" || mount -t proc proc "$partial/proc"
            env DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$partial" \
                apt-get -q install -y --no-install-recommends "$@"
            chroot "$partial" apt-get clean
            umount "$partial/proc"
            rm -rf --one-file-system "$root"
            mv "$partial" "$root"
        ' make_root "$release" "$root" "$partial" "$uri" "${KAMAILIO[@]}" || exit 1
    ) 9>"$ROOTS/.lock"
}

# add_to_root RELEASE PACKAGE...: installs what is missing in a root that is there.
add_to_root() {
    local root=$ROOTS/$1 wanted
    shift
    mapfile -t wanted < <(missing "$root" "$@")
    [ ${#wanted[@]} = 0 ] && return 0
    (
        flock 9 || exit 1
        # A mirror drops old versions: the index of the day on which the root was made names files that are gone.
        as_root chroot "$root" apt-get -q update &&
            as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$root" \
                apt-get -q install -y --no-install-recommends "${wanted[@]}" &&
            as_root chroot "$root" apt-get clean
    ) 9>"$ROOTS/.lock"
}

# unpack_in_root RELEASE NAME PACKAGE...: what is in these packages, as /opt/NAME of a root: a server without all that its
# package depends on. Nothing else in the root changes.
unpack_in_root() {
    local root=$ROOTS/$1 name=$2
    shift 2
    [ -e "$root/opt/$name" ] && return 0
    (
        flock 9 || exit 1
        [ -e "$root/opt/$name" ] && exit 0
        as_root chroot "$root" bash -euc '
            name=$1 new=/opt/.$1.new
            shift
            rm -rf "$new"
            mkdir -p "$new/tree"
            cd "$new"
            get() { apt-get -q -o APT::Sandbox::User=root download "$@"; }
            get "$@" || { apt-get -q update && get "$@"; }
            for package in *.deb; do dpkg-deb -x "$package" tree; done
            mv tree "/opt/$name"
            rm -rf "$new"
        ' unpack_in_root "$name" "$@" || exit 1
    ) 9>"$ROOTS/.lock"
}
