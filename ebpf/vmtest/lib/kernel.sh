# shellcheck shell=bash
# Kernels from Debian's registry: found by the name of their metapackage each time, fetched once per version, never
# installed. The host's own package lists are neither used nor changed, so any system with apt will do.

debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# Package lists older than this are fetched anew; the archive drops the packages that old lists name.
lists_hours=12

# The modules that a guest loads: first what its disks and channels need, in this order, then what tests may use.
boot_modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk virtio_console)
more_modules=(overlay loop fuse veth dummy br_netfilter bridge stp llc tun unix_diag inet_diag binfmt_misc)

# apt with package lists of its own.
debian_apt() { # debian_apt apt-get|apt-cache WORD…
    local apt=$cache/apt program=$1
    shift
    mkdir -p "$apt"/{lists/partial,archives/partial}
    cat >"$apt/sources.list" <<SOURCES
deb [signed-by=$debian_keyring] http://deb.debian.org/debian bookworm main
deb [signed-by=$debian_keyring] http://deb.debian.org/debian-security bookworm-security main
SOURCES
    [[ -e $apt/status ]] || : >"$apt/status"
    "$program" -q -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::trustedparts=/dev/null -o Dir::State="$apt" -o Dir::State::status="$apt/status" \
        -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt" -o Dir::Cache::archives="$apt/archives" \
        -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false -o Debug::NoLocking=true \
        -o APT::Sandbox::User=root -o Acquire::Retries=2 "$@"
}

update_lists() {
    debian_apt apt-get update >"$cache/apt.log" 2>&1 && touch "$cache/apt/updated"
}

lists_are_fresh() {
    [[ -n $(find "$cache/apt/updated" -mmin "-$((lists_hours * 60))" 2>/dev/null) ]]
}

metapackage() {
    case $1 in
        6.1) echo linux-image-cloud-amd64 ;;
        *) echo "linux-image-$1-cloud-amd64" ;;
    esac
}

# Prints the package behind a metapackage, `name=version`.
kernel_package() {
    local name version
    name=$(debian_apt apt-cache depends "$(metapackage "$1")" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    [[ $name ]] || return 1
    version=$(debian_apt apt-cache policy "$name" 2>/dev/null | sed -n 's/^ *Candidate: //p')
    [[ $version && $version != '(none)' ]] && echo "$name=$version"
}

# Unpacks a kernel: vmlinuz, config, release, and a few modules, decompressed.
fetch_kernel() { # fetch_kernel PACKAGE=VERSION DIRECTORY
    local work release module
    work=$(mktemp -d "$cache/kernel.XXXXXX")
    (cd "$work" && debian_apt apt-get download "$1" >"$cache/apt.log" 2>&1) || {
        rm -rf "$work"
        return 1
    }
    dpkg-deb -x "$work"/*.deb "$work/tree"
    release=$(basename "$work"/tree/boot/vmlinuz-*)
    release=${release#vmlinuz-}
    mkdir -p "$work/kernel/modules"
    cp "$work/tree/boot/vmlinuz-$release" "$work/kernel/vmlinuz"
    cp "$work/tree/boot/config-$release" "$work/kernel/config"
    for module in "${boot_modules[@]}" "${more_modules[@]}"; do
        # What is not there is part of the kernel itself, or the kernel has none.
        find "$work/tree" \( -name "$module.ko" -o -name "$module.ko.xz" \) -exec cp -t "$work/kernel/modules" {} +
    done
    find "$work/kernel/modules" -name '*.xz' -exec xz -d {} +
    echo "$release" >"$work/kernel/release"
    rm -rf "$2"
    mv "$work/kernel" "$2"
    rm -rf "$work"
}

prepare_kernel() { # prepare_kernel VERSION: keeps $cache/kernel-VERSION a link to the newest one
    local found directory link=$cache/kernel-$1 started=$EPOCHREALTIME
    lists_are_fresh || update_lists || say "Debian's package lists cannot be fetched now (see $cache/apt.log)"
    found=$(kernel_package "$1") || found=''
    if [[ -z $found ]]; then
        [[ -e $link/vmlinuz ]] || fail "no kernel: Debian has no $(metapackage "$1"), or it cannot be reached (see $cache/apt.log)"
        say "using the kernel that was fetched before: $(<"$link/release")"
        return
    fi
    directory=$cache/${found//[=:]/_}
    if [[ ! -e $directory/release ]]; then
        fetch_kernel "$found" "$directory" || { update_lists && found=$(kernel_package "$1") &&
            directory=$cache/${found//[=:]/_} && fetch_kernel "$found" "$directory"; } ||
            fail "$found cannot be fetched (see $cache/apt.log)"
        say "fetched $found in $(since "$started")"
    fi
    ln -sfn "$directory" "$link"
}
