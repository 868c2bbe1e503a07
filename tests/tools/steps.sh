# shellcheck shell=bash
# Steps with a result and a time, and the table of them at the end. Sourced, not run.

summary=()
# shellcheck disable=SC2034 # the exit status of those who source this
failed=0

# A step that ends with this status could not be run here; it has said why.
NOT_HERE=77

# step NAME COMMAND...: runs it and notes how it went. The status is that of the command.
step() {
    local name=$1 start=$SECONDS status=0 result=ok
    shift
    printf '\n== %s\n' "$name"
    "$@" || status=$?
    case $status in
    0) ;;
    "$NOT_HERE") result="NOT RUN" ;;
    *) result=FAILED failed=1 ;;
    esac
    summary+=("$(printf '%-8s %5ss  %s' "$result" $((SECONDS - start)) "$name")")
    return $status
}

# print_summary [OF WHAT]
print_summary() {
    printf '\n== summary%s\n' "${1:+ of $1}"
    printf '%s\n' "${summary[@]}"
}
