# shellcheck shell=bash
# A copy of a Debian tree to install things in, and a Kamailio in it that is started as its unit does. Sourced by
# scripts that run in mount and network namespaces of their own; `work` is a directory of the caller.
#
# The copy is an overlay: nothing is written to the tree itself, and nothing is left of it afterwards.

tree='' kamailio_pid=''

fail() {
    echo "FAILED: $*" >&2
    [ ! -s "$work/log" ] || tail -n 30 "$work/log" >&2
    exit 1
}

# wait_until SECONDS COMMAND...
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.05
    done
}

# copy_tree ROOT: sets `tree`.
copy_tree() {
    tree=$work/tree
    mkdir -p "$work/upper" "$work/overlay" "$tree"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$work/upper,workdir=$work/overlay" "$tree"
    mount -t proc proc "$tree/proc"
    mount --rbind /dev "$tree/dev"
    mount -t tmpfs tmpfs "$tree/run"
}

drop_tree() {
    stop_kamailio || true
    [ -z "$tree" ] || umount --recursive "$tree" 2>/dev/null || true
}

# inside COMMAND...: in the tree, as root.
inside() { env -u LC_ALL LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive chroot "$tree" "$@"; }

kamcmd_inside() { inside kamcmd -s unix:/run/kamailio/kamailio_ctl "$@"; }

kamailio_is_gone() { [ -z "$kamailio_pid" ] || ! kill -0 "$kamailio_pid" 2>/dev/null; }

stop_kamailio() {
    [ -n "$kamailio_pid" ] || return 0
    kill "$kamailio_pid" 2>/dev/null || true
    wait_until 30 kamailio_is_gone || return 1
    kamailio_pid=''
}

# start_like_unit: what systemd does with the lines of Debian's kamailio.service. Sets kamailio_pid.
start_like_unit() {
    local unit variables capabilities command
    unit=$(find "$tree/usr/lib/systemd/system" "$tree/lib/systemd/system" -name kamailio.service 2>/dev/null | head -n 1)
    [ -n "$unit" ] || fail "there is no unit"
    setting() { sed -n "s/^$1=//p" "$unit" | tail -n 1; }
    inside install -d -m "$(setting RuntimeDirectoryMode)" -o "$(setting User)" -g "$(setting Group)" \
        "/run/$(setting RuntimeDirectory)"
    variables=$(sed -n "s/^Environment='\(.*\)'/\1/p" "$unit")
    capabilities=$(setting AmbientCapabilities | tr 'A-Z ' 'a-z,' | sed 's/cap_/+/g')
    # shellcheck disable=SC2086 # one word for each variable
    command=$(env -i $variables bash -c "echo \"$(setting ExecStart)\"")
    # shellcheck disable=SC2086 # the command line of the unit
    inside setpriv --reuid "$(setting User)" --regid "$(setting Group)" --init-groups \
        --inh-caps "-all${capabilities:+,$capabilities}" --ambient-caps "-all${capabilities:+,$capabilities}" \
        $command >"$work/log" 2>&1 || fail "Kamailio does not start"
    wait_until 20 test -s "$tree/run/kamailio/kamailio.pid" || fail "Kamailio wrote no pid file"
    kamailio_pid=$(cat "$tree/run/kamailio/kamailio.pid")
    wait_until 20 kamcmd_inside apiban.status || fail "Kamailio does not answer"
    [ "$(stat -c %u "/proc/$kamailio_pid")" = "$(inside id -u kamailio)" ] || fail "Kamailio does not run as user kamailio"
}
