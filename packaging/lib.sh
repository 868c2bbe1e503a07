# shellcheck shell=bash
# What the packaging scripts share. Sourced, not run.

# The newest C library of the oldest supported Debian (bookworm): what needs a newer one runs there no more.
OLDEST_GLIBC=2.36

# The version stands in Cargo.toml, and nowhere else.
version() {
    sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1
}

# Seconds of the last commit; of CHANGELOG.md in a tree without git.
source_date() {
    git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md
}

known_arch() {
    case $1 in
    amd64 | arm64) ;;
    *) die "architecture $1 is not supported; there are amd64 and arm64" ;;
    esac
}

# triplet ARCH: as in Debian's library folders.
triplet() {
    case $1 in
    amd64) echo x86_64-linux-gnu ;;
    arm64) echo aarch64-linux-gnu ;;
    esac
}

# compile ARCH: builds module and program, and prints the folder they are in.
compile() {
    if [ "$1" = "$(dpkg --print-architecture)" ]; then
        compile_here >&2
        echo "$(target_dir)/release"
    else
        tests/arm64 --only-build >&2
        echo "$PWD/target/arm64/release"
    fi
}

target_dir() {
    cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

compile_here() {
    local cargo_home=${CARGO_HOME:-$HOME/.cargo}
    RUSTFLAGS="$(path_flags "$PWD" "$cargo_home")" \
        CFLAGS="-ffile-prefix-map=$PWD=/usr/src/apiban" \
        cargo build --release --locked --lib --bins
}

# generator ARCH BUILT: an `apiban` that runs here and prints man pages and completions; another machine's runs under the
# qemu of tests/tools/arm64_trees.sh.
generator() {
    if [ "$1" = "$(dpkg --print-architecture)" ]; then
        echo "$2/apiban"
    else
        printf '#!/bin/sh\nexec "%s" -L "%s" "%s" "$@"\n' "$QEMU" "$BUILD/usr/aarch64-linux-gnu" "$2/apiban" >"$2/apiban-here"
        chmod 755 "$2/apiban-here"
        echo "$2/apiban-here"
    fi
}

# path_flags SOURCE CARGO_HOME: what keeps paths of this machine out of the files.
path_flags() {
    echo "--remap-path-prefix=$1=/usr/src/apiban --remap-path-prefix=$2=/usr/src/cargo"
}

# check_libc FILE...: fails if a file needs a newer C library than the oldest supported release has.
check_libc() {
    local file newest
    for file; do
        newest=$(objdump -T "$file" | grep -o 'GLIBC_[0-9][0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -n 1)
        [ "$(printf '%s\n' "$newest" $OLDEST_GLIBC | sort -V | tail -n 1)" = $OLDEST_GLIBC ] ||
            die "$file needs glibc $newest; the packages support $OLDEST_GLIBC and newer: build on Debian bookworm"
        echo "$(basename "$file"): needs glibc $newest"
    done
}

# touch_all DIRECTORY: one time stamp for everything in it.
touch_all() {
    find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}
