# shellcheck shell=bash
# A copy of a Debian tree to install things in, and a Kamailio in it that is started as its unit does. Sourced by
# scripts that run in mount and network namespaces of their own; `work` is a directory of the caller.
#
# The copy is an overlay: nothing is written to the tree itself, and nothing is left of it afterwards.

tree='' kamailio_pid='' feed_pid=''
# shellcheck disable=SC2034 # for those who source this
listed=127.0.0.66 unlisted=127.0.0.5 sip=127.0.0.1:5060 feed=127.0.0.1:8080

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

# enter_copy ROOT: a copy of the tree, the loopback device of this namespace, and the stand-in for the service. All of it
# ends with the script.
enter_copy() {
    : "${bin:?}" # the folder of feed_server and sip_ping
    trap leave_copy EXIT
    copy_tree "$1"
    ip link set lo up
    start_feed
}

leave_copy() {
    stop_feed
    drop_tree
}

drop_tree() {
    stop_kamailio || true
    [ -z "$tree" ] || umount --recursive "$tree" 2>/dev/null || true
}

# start_feed: a stand-in for the service that lists $listed and sixty others.
start_feed() {
    { seq -f '198.51.100.%g' 1 60; echo $listed; } >"$work/list"
    "$bin/feed_server" --listen $feed --key test-key --list "$work/list" >"$work/feed" &
    feed_pid=$!
}

stop_feed() { [ -z "$feed_pid" ] || kill "$feed_pid" 2>/dev/null || true; }

# configure_sample: a kamailio.cfg that includes the packaged sample, and the key of the stand-in.
configure_sample() {
    echo test-key >"$tree/etc/kamailio/apiban.key"
    cat >"$tree/etc/kamailio/kamailio.cfg" <<CONFIGURATION
#!KAMAILIO
#!define APIBAN_URL "http://$feed/api"
#!define APIBAN_LISTEN udp:$sip
#!define APIBAN_DEMO
#!define APIBAN_EARLY
include_file "/usr/share/doc/kamailio-apiban-module/examples/kamailio.cfg.sample"
CONFIGURATION
}

# expect_protected: the listed source is dropped within half a minute, another one is answered.
expect_protected() {
    "$bin/sip_ping" --from $listed --until dropped --within 30 $sip >/dev/null || fail "$listed is listed and still answered"
    expect_answered
}

# expect_state COMMAND...: the module writes its state file, and the program, which COMMAND runs in the tree, reads it.
expect_state() {
    local file=/var/lib/kamailio/apiban.state
    wait_until 20 test -s "$tree$file" || fail "no state file"
    inside "$@" check 198.51.100.7 --state-file $file >/dev/null || fail "the program does not read the module's state"
}

# Debian's own configuration answers a keepalive; what it answers does not matter here.
expect_answered() {
    "$bin/sip_ping" --from $unlisted --count 3 $sip | grep -q 'answered 3' || fail "$unlisted is not answered"
}

# inside COMMAND...: in the tree, as root.
INSIDE=(env -u LC_ALL LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive chroot)
inside() { "${INSIDE[@]}" "$tree" "$@"; }

kamcmd_inside() { inside kamcmd -s unix:/run/kamailio/kamailio_ctl "$@"; }

kamailio_is_gone() { [ -z "$kamailio_pid" ] || ! kill -0 "$kamailio_pid" 2>/dev/null; }

stop_kamailio() {
    [ -n "$kamailio_pid" ] || return 0
    kill "$kamailio_pid" 2>/dev/null || true
    wait_until 30 kamailio_is_gone || return 1
    kamailio_pid=''
    rm -f "$tree/run/kamailio/kamailio.pid"
}

# start_like_unit: what systemd does with the lines of Debian's kamailio.service and of the administrator's drop-ins for
# it. Sets kamailio_pid.
start_like_unit() {
    local unit units variables capabilities command
    unit=$(find "$tree/usr/lib/systemd/system" "$tree/lib/systemd/system" -name kamailio.service 2>/dev/null | head -n 1)
    [ -n "$unit" ] || fail "there is no unit"
    units=("$unit")
    for unit in "$tree"/etc/systemd/system/kamailio.service.d/*.conf; do
        [ ! -e "$unit" ] || units+=("$unit")
    done
    # A list of capabilities adds up over the files; of any other setting the last one counts.
    settings() { sed -n "s/^$1=//p" "${units[@]}"; }
    setting() { settings "$1" | tail -n 1; }
    inside install -d -m "$(setting RuntimeDirectoryMode)" -o "$(setting User)" -g "$(setting Group)" \
        "/run/$(setting RuntimeDirectory)"
    variables=$(sed -n "s/^Environment='\(.*\)'/\1/p" "${units[@]}")
    capabilities=$(settings AmbientCapabilities | tr 'A-Z \n' 'a-z,,' | sed -e 's/cap_/+/g' -e 's/,$//')
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
