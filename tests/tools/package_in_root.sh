#!/usr/bin/env bash
# Installs, upgrades, removes and purges the module's package in a copy of a Debian tree: called by
# tests/tools/packages in namespaces of its own.
#
#   bin=FOLDER package_in_root.sh ROOT WORK OLDER.deb CURRENT.deb PROGRAM.deb
set -euo pipefail
. "$(dirname "$0")/debian_tree.sh"

lower=$1 work=$2 older=$3 current=$4 program=$5

exists() { [ -e "$tree/$1" ] || fail "$1 is missing"; }
gone() { [ ! -e "$tree/$1" ] || fail "$1 is still there"; }

enter_copy "$lower"
cp "$older" "$tree/older.deb"
cp "$current" "$tree/current.deb"
cp "$program" "$tree/program.deb"
modules=usr/lib/$(inside dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || basename "$(dirname "$(find "$tree/usr/lib" -maxdepth 2 -name kamailio -type d | head -n 1)")")/kamailio/modules

echo "-- install"
inside dpkg -i /older.deb >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "the package cannot be installed"; }
exists "$modules/apiban.so"
[ "$(stat -c '%U %a' "$tree/var/lib/kamailio" 2>/dev/null || true)" = "kamailio 750" ] ||
    [ "$(inside stat -c '%U %a' /var/lib/kamailio)" = "kamailio 750" ] || fail "/var/lib/kamailio is not kamailio's"
! inside pgrep -x kamailio >/dev/null 2>&1 || fail "the installation started Kamailio"
echo "# our carriers" >>"$tree/etc/kamailio/apiban.trust"

echo "-- a Kamailio started as its unit does, with the sample configuration"
inside install -m 0640 -o root -g kamailio /dev/null /etc/kamailio/apiban.key
configure_sample
start_like_unit
expect_protected

echo "-- the program beside it"
inside dpkg -i /program.deb >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "the program's package cannot be installed"; }
expect_state apiban
[ "$(find "$tree/etc/systemd/system" -name 'apiban*' | wc -l)" = 0 ] || fail "the installation enabled a unit"
exists usr/share/man/man1/apiban-check.1.gz
inside dpkg -P apiban >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "the program's package cannot be purged"; }
gone usr/bin/apiban
gone etc/apiban/apiban.toml

echo "-- upgrade under a running Kamailio"
inside dpkg -i /current.deb >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "the upgrade failed"; }
inside dpkg-query -W -f '${Version}\n' kamailio-apiban-module | grep -qv '^0\.0\.1-1$' || fail "the upgrade changed nothing"
grep -q '# our carriers' "$tree/etc/kamailio/apiban.trust" || fail "the upgrade lost a changed configuration file"
kill -0 "$kamailio_pid" || fail "the upgrade ended Kamailio"
"$bin/sip_ping" --from $listed --count 3 $sip | grep -q 'dropped 3' || fail "$listed is answered after the upgrade"

echo "-- remove and purge"
inside dpkg -r kamailio-apiban-module >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "the package cannot be removed"; }
gone "$modules/apiban.so"
exists etc/kamailio/apiban.trust
kill -0 "$kamailio_pid" || fail "the removal ended Kamailio"
expect_answered
stop_kamailio || fail "Kamailio does not end"
inside dpkg -P kamailio-apiban-module >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "the package cannot be purged"; }
gone etc/kamailio/apiban.trust
gone var/lib/kamailio/apiban.state
gone usr/lib/systemd/system/kamailio.service.d/apiban-state.conf
gone usr/share/doc/kamailio-apiban-module
exists etc/kamailio/apiban.key
left=$(inside dpkg -V 2>/dev/null | grep apiban || true)
[ -z "$left" ] || fail "left behind: $left"
echo "-- all as expected"
