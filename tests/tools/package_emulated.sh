#!/usr/bin/env bash
# Tries arm64 packages on another machine: called by tests/tools/packages in namespaces of its own.
#
#   bin=FOLDER package_emulated.sh QEMU SYSTEM WORK MODULE.deb PROGRAM.deb
#
# SYSTEM is an arm64 Debian that is unpacked and not configured, so dpkg cannot install into it: the files of the packages
# are laid into a copy, and Kamailio and the program run there under qemu, as root.
set -euo pipefail
. "$(dirname "$0")/debian_tree.sh"

qemu=$1 lower=$2 work=$3 module=$4 program=$5

enter_copy "$lower"
dpkg -x "$module" "$tree"
dpkg -x "$program" "$tree"
cp "$qemu" "$tree/qemu"
mkdir -p "$tree/run/kamailio" "$tree/var/lib/kamailio"
configure_sample
emulated() { inside /qemu "$@"; }
emulated /usr/sbin/kamailio -v | head -n 1
# Signals go to the emulator, which hands them on: without a shell around it that would end alone.
(
    exec "${INSIDE[@]}" "$tree" /qemu \
        /usr/sbin/kamailio -DD -E -f /etc/kamailio/kamailio.cfg -Y /run/kamailio -P /run/kamailio/kamailio.pid
) >"$work/log" 2>&1 &
kamailio_pid=$!
wait_until 60 kamcmd -s "unix:$tree/run/kamailio/kamailio_ctl" apiban.status || fail "Kamailio does not answer"
expect_protected
expect_state /qemu /usr/bin/apiban
stop_kamailio || fail "Kamailio does not end"
echo "-- all as expected"
