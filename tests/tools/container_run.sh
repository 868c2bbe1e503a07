#!/usr/bin/env bash
# Runs the container image and sends it SIP: called by tests/tools/container in a network namespace of its own, with
# which all processes end.
#
#   container_run.sh docker|buildah IMAGE FOLDER-OF-FEED_SERVER-AND-SIP_PING
set -euo pipefail

tool=$1 image=$2 bin=$3
listed=127.0.0.66 unlisted=127.0.0.5 sip=127.0.0.1:5060
dir=$(mktemp -d)
chmod 755 "$dir"
trap 'rm -rf "$dir"' EXIT
ip link set lo up
seq -f '198.51.100.%g' 1 60 >"$dir/list"
echo $listed >>"$dir/list"
echo container-key >"$dir/key"
chmod 644 "$dir/key"
"$bin/feed_server" --listen 127.0.0.1:8080 --key container-key --list "$dir/list" >"$dir/feed.log" 2>&1 &
arguments=(-A 'APIBAN_URL="http://127.0.0.1:8080/api"' -A "APIBAN_LISTEN=udp:$sip" -A APIBAN_DEMO)
mount=$dir/key:/etc/kamailio/apiban.key:ro
if [ "$tool" = docker ]; then
    # The container joins this namespace, where the feed and the SIP client are.
    docker run --rm --network "ns:/proc/$$/ns/net" -v "$mount" "$image" "${arguments[@]}" >"$dir/log" 2>&1 &
else
    container=$(buildah from "$image")
    mapfile -t entry < <(buildah inspect --format '{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}' "$container" | sed '/^$/d')
    buildah run --isolation chroot --network host -v "$mount" "$container" -- "${entry[@]}" "${arguments[@]}" >"$dir/log" 2>&1 &
fi
# Until Kamailio listens, the kernel refuses what is sent there.
deadline=$((SECONDS + 60))
until "$bin/sip_ping" --from $unlisted --count 1 $sip 2>/dev/null | grep -q 'answered 1'; do
    [ $SECONDS -lt $deadline ] || { tail -n 30 "$dir/log"; echo "FAILED: the container does not answer" >&2; exit 1; }
    sleep 0.2
done
"$bin/sip_ping" --from $listed --until dropped --within 60 $sip >/dev/null ||
    { tail -n 30 "$dir/log"; echo "FAILED: $listed is listed and still answered" >&2; exit 1; }
"$bin/sip_ping" --from $unlisted --count 3 $sip | tee "$dir/pings"
grep -q 'answered 3' "$dir/pings" || { tail -n 30 "$dir/log"; echo "FAILED: $unlisted is not answered" >&2; exit 1; }
"$bin/sip_ping" --from $listed --count 3 $sip
