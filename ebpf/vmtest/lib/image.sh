# shellcheck shell=bash
# The guest's user land: a Debian root file system, made once per list of packages.

# Programs that the tests run, and systemd for tests of the daemon. No compiler: probes are built on the host.
image_packages=(bash coreutils diffutils findutils git grep gzip iproute2 jq kmod less make ncurses-base passwd procps python3 sed
    sqlite3 systemd systemd-sysv tar tmux util-linux)

# Programs from here run there, so the guest's C library may not be older than the host's.
image_suite() {
    local libc
    libc=$(getconf GNU_LIBC_VERSION) libc=${libc##*.}
    if ((libc <= 36)); then
        echo bookworm
    elif ((libc <= 41)); then
        echo trixie
    else
        fail "no Debian release is known to run programs of the C library 2.$libc; set VMTEST_SUITE"
    fi
}

image_path() {
    local suite=${VMTEST_SUITE:-$(image_suite)} key
    # The recipe is part of the key.
    key=$( (echo "$suite" && cat "$here/lib/image.sh") | sha256sum)
    echo "$cache/root-$suite-${key:0:12}.ext4"
}

prepare_image() {
    local image work suite=${VMTEST_SUITE:-$(image_suite)} started=$EPOCHREALTIME
    image=$(image_path)
    [[ -e $image ]] && return
    ((EUID == 0)) || fail "the guest's root file system is made by root: run once 'sudo $here/run --prepare'"
    require mmdebstrap:mmdebstrap
    say "making the guest's root file system (once)"
    work=$(mktemp -d "$cache/root.XXXXXX")
    # shellcheck disable=SC2016 # $1 is for the hook
    mmdebstrap --quiet --variant=essential --mode=root --keyring="$debian_keyring" \
        --include="$(IFS=, && echo "${image_packages[*]}")" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --customize-hook='chroot "$1" useradd --create-home --uid 1000 --shell /bin/bash tester' \
        --customize-hook='rm -f "$1/etc/hostname" "$1/etc/resolv.conf" && echo vm >"$1/etc/hostname" && echo "nameserver 127.0.0.1" >"$1/etc/resolv.conf"' \
        --customize-hook='echo "127.0.0.1 localhost vm" >"$1/etc/hosts"; : >"$1/etc/fstab"' \
        "$suite" "$work/root" >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        mv "$work/log" "$cache/root.log"
        rm -rf "$work"
        fail "the root file system cannot be made (all that was said: $cache/root.log)"
    }
    local size
    size=$(du -sm "$work/root" | cut -f 1)
    PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -m 0 -O ^has_journal -L root -d "$work/root" "$image.part" "$((size + size / 4 + 512))M" >/dev/null
    rm -rf "$work"
    mv "$image.part" "$image"
    say "made $image, $size MB, in $(since "$started")"
}
