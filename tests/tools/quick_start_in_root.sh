#!/usr/bin/env bash
# Follows the quick start of README.md word for word in a copy of a Debian tree with Debian's own kamailio.cfg, up to
# the first dropped packet: called by tests/tools/packages in namespaces of its own.
#
#   bin=FOLDER quick_start_in_root.sh ROOT WORK README.md PACKAGE.deb
#
# What stands in for the person and for the machine: `editor` writes the key, a line of trust and the lines that the
# README has for kamailio.cfg; `systemctl restart kamailio` starts Kamailio as its unit does. The service is a
# stand-in on loopback, so two lines more name it and let loopback sources be banned.
set -euo pipefail
. "$(dirname "$0")/debian_tree.sh"

lower=$1 work=$2 readme=$3 package=$4
here=$(realpath "$(dirname "$0")")

enter_copy "$lower"

mkdir -p "$tree/root/packages"
cp "$package" "$tree/root/packages/"
"$here/quick_start.py" shell "$readme" >"$work/commands"
echo "-- the commands"
cat "$work/commands"

edit() {
    local file
    for file; do
        case $file in
        */apiban.key) echo test-key >"$tree$file" ;;
        */apiban.trust) echo "192.0.2.10 # carrier" >>"$tree$file" ;;
        */kamailio.cfg)
            "$here/quick_start.py" configure "$readme" "$tree$file"
            sed -i "0,/^loadmodule \"apiban.so\"/s||&\nmodparam(\"apiban\", \"api_url\", \"http://$feed/api\")\nmodparam(\"apiban\", \"trust_self\", 0)|" "$tree$file"
            ;;
        *) fail "nobody knows what to write into $file" ;;
        esac
    done
}
# follow FILE FOLDER: each command of the README by itself, in the order of the README; FOLDER is where the person stands.
follow() {
    local line part parts
    while IFS= read -r line; do
        IFS=$'\n' read -r -d '' -a parts < <(sed 's/ && /\n/g' <<<"$line"; printf '\0') || true
        for part in "${parts[@]}"; do
            echo "   $part"
            case $part in
            "" | "systemctl daemon-reload") ;;
            "editor "*) # shellcheck disable=SC2086 # one word for each file
                edit ${part#editor } ;;
            "systemctl restart kamailio")
                stop_kamailio || fail "Kamailio does not end"
                start_like_unit
                ;;
            *) inside bash -euc "cd $2 && $part" >"$work/output" 2>&1 </dev/null || { cat "$work/output"; fail "$part"; } ;;
            esac
        done
    done < <(sed -e 's/#.*//' -e 's/[[:space:]]*$//' "$1")
}
start=$SECONDS
follow "$work/commands" /root/packages
[ -n "$kamailio_pid" ] || fail "the commands do not start Kamailio"
"$bin/sip_ping" --from $listed --until dropped --within 30 $sip >/dev/null || fail "$listed is listed and still answered"
echo "-- protected $((SECONDS - start)) s after the first command"
expect_answered
kamcmd_inside apiban.status | grep -q 'state: ok' || fail "apiban.status does not show what README says"

echo "-- the lines for Prometheus"
"$here/quick_start.py" prometheus "$readme" "$tree/etc/kamailio/kamailio.cfg"
stop_kamailio || fail "Kamailio does not end"
start_like_unit
# Not curl: -f would hide the answer of a Kamailio that refuses.
python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())' \
    http://$sip/metrics >"$work/metrics"
grep -q '^kamailio_apiban_checks ' "$work/metrics" || fail "Kamailio serves no statistics of apiban"
# A configuration without listen lines must still listen for SIP.
expect_protected
echo "-- Prometheus $((SECONDS - start)) s after the first command"

echo "-- nft: first without the capability, then with it"
firewall_state() { kamcmd_inside apiban.status | sed -n '/firewall: {/,/}/s/.*state: //p' | head -n 1; }
firewall_is() { [ "$(firewall_state)" = "$1" ]; }
sed -i '0,/^loadmodule "apiban.so"/s||&\nmodparam("apiban", "firewall", "nft")|' "$tree/etc/kamailio/kamailio.cfg"
stop_kamailio || fail "Kamailio does not end"
start_like_unit
wait_until 20 firewall_is no_permission || fail "firewall.state is $(firewall_state), not no_permission"
"$here/quick_start.py" capability "$readme" >"$work/commands"
follow "$work/commands" /usr/share/doc/kamailio-apiban-module
wait_until 20 firewall_is ok || fail "firewall.state is $(firewall_state), not ok"
"$bin/sip_ping" --from $listed --until dropped --within 30 $sip >/dev/null || fail "$listed is still answered"
expect_answered
counted() { kamcmd_inside apiban.status | sed -n '/firewall: {/,/}/s/.*dropped: //p' | head -n 1 | grep -qv '^0$'; }
wait_until 20 counted || fail "nft counts no dropped packet"
echo "-- nft $((SECONDS - start)) s after the first command"
