# shellcheck shell=bash
# Kernels from Debian's registry: found by the name of their metapackage each time, fetched once per version, never
# installed. The host's own package lists are neither used nor changed, so any system with apt will do.

debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# Package lists older than this are fetched anew; the archive drops the packages that old lists name.
lists_hours=12

# The modules that a guest loads: first what its disks and channels need, in this order, then what tests may use.
boot_modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk virtio_console)
more_modules=(overlay loop fuse veth dummy br_netfilter bridge stp llc tun unix_diag inet_diag binfmt_misc)

# Where a kernel's packages are: Debian 12 has 6.1 and 6.12; all others are looked for in what is built anew for Debian 13.
suite_of() { # suite_of KERNEL
    case $1 in
        6.1 | 6.12) echo bookworm ;;
        *) echo trixie-backports ;;
    esac
}

# apt with package lists of its own, which are those of one suite.
debian_apt() { # debian_apt SUITE apt-get|apt-cache WORD…
    local suite=$1 apt=$cache/apt-$1 program=$2 security=''
    shift 2
    mkdir -p "$apt"/{lists/partial,archives/partial}
    [[ $suite == *-backports ]] || security="deb [signed-by=$debian_keyring] http://deb.debian.org/debian-security $suite-security main"
    cat >"$apt/sources.list" <<SOURCES
deb [signed-by=$debian_keyring] http://deb.debian.org/debian $suite main
$security
SOURCES
    [[ -e $apt/status ]] || : >"$apt/status"
    "$program" -q -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::trustedparts=/dev/null -o Dir::State="$apt" -o Dir::State::status="$apt/status" \
        -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt" -o Dir::Cache::archives="$apt/archives" \
        -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false -o Debug::NoLocking=true \
        -o APT::Sandbox::User=root -o Acquire::Retries=2 "$@"
}

update_lists() { # update_lists SUITE
    debian_apt "$1" apt-get update >"$cache/apt.log" 2>&1 && touch "$cache/apt-$1/updated"
}

lists_are_fresh() { # lists_are_fresh SUITE
    [[ -n $(find "$cache/apt-$1/updated" -mmin "-$((lists_hours * 60))" 2>/dev/null) ]]
}

metapackage() {
    case $1 in
        6.1 | backports) echo linux-image-cloud-amd64 ;;
        6.12) echo linux-image-6.12-cloud-amd64 ;;
    esac
}

# Names of the packages that one depends on.
dependencies() { # dependencies SUITE PACKAGE
    debian_apt "$1" apt-cache depends "$2" 2>/dev/null | sed -n 's/^ *Depends: \([^<].*\)/\1/p'
}

# The package of the kernel itself: what its metapackage depends on, or the newest one that begins so.
image_package() { # image_package KERNEL
    local suite meta
    suite=$(suite_of "$1") meta=$(metapackage "$1")
    if [[ $meta ]]; then
        dependencies "$suite" "$meta" | grep -m 1 '^linux-image-[0-9]'
    else
        debian_apt "$suite" apt-cache pkgnames "linux-image-$1." | grep -E -- '^linux-image-[0-9.]+[^-]*-cloud-amd64$' |
            sort -V | tail -n 1
    fi
}

# Prints the packages of a kernel, `name=version` of each: since 7.3 the file to boot and the modules have their own.
kernel_packages() { # kernel_packages KERNEL
    local suite image name version
    suite=$(suite_of "$1")
    image=$(image_package "$1") || return 1
    [[ $image ]] || return 1
    for name in "$image" $(dependencies "$suite" "$image" | grep -E '^linux-(binary|modules)-'); do
        version=$(debian_apt "$suite" apt-cache policy "$name" 2>/dev/null | sed -n 's/^ *Candidate: //p')
        [[ $version && $version != '(none)' ]] || return 1
        echo "$name=$version"
    done
}

# Unpacks a kernel: vmlinuz, release, and a few modules, decompressed.
fetch_kernel() { # fetch_kernel SUITE DIRECTORY PACKAGE=VERSION…
    local work release module package suite=$1 directory=$2
    shift 2
    work=$(mktemp -d "$cache/kernel.XXXXXX")
    (cd "$work" && debian_apt "$suite" apt-get download "$@" >"$cache/apt.log" 2>&1) || {
        rm -rf "$work"
        return 1
    }
    for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/tree"; done
    # In the package that only has it, the file to boot lies with the modules.
    release=$(find "$work/tree" -name 'vmlinuz*' -printf '%h/%f\n' | head -n 1)
    [[ $release ]] || {
        rm -rf "$work"
        return 1
    }
    mkdir -p "$work/kernel/modules"
    cp "$release" "$work/kernel/vmlinuz"
    release=$(basename "$(find "$work/tree" -path '*/modules/*' -mindepth 1 -maxdepth 4 -type d -name '[0-9]*' | head -n 1)")
    for module in "${boot_modules[@]}" "${more_modules[@]}"; do
        # What is not there is part of the kernel itself, or the kernel has none.
        find "$work/tree" \( -name "$module.ko" -o -name "$module.ko.xz" \) -exec cp -t "$work/kernel/modules" {} +
    done
    find "$work/kernel/modules" -name '*.xz' -exec xz -d {} +
    echo "$release" >"$work/kernel/release"
    rm -rf "$directory"
    mv "$work/kernel" "$directory"
    rm -rf "$work"
}

prepare_kernel() { # prepare_kernel KERNEL: keeps $cache/kernel-KERNEL a link to the newest one
    local found=() directory link=$cache/kernel-$1 suite started=$EPOCHREALTIME
    suite=$(suite_of "$1")
    lists_are_fresh "$suite" || update_lists "$suite" || say "Debian's package lists cannot be fetched now (see $cache/apt.log)"
    mapfile -t found < <(kernel_packages "$1")
    if ((${#found[@]} == 0)); then
        [[ -e $link/vmlinuz ]] || fail "no kernel: Debian's $suite has no cloud kernel for $1, or it cannot be reached (see $cache/apt.log)"
        say "using the kernel that was fetched before: $(<"$link/release")"
        return
    fi
    directory=$cache/${found[0]//[=:]/_}
    if [[ ! -e $directory/release ]]; then
        # Old lists name packages that the archive has dropped.
        fetch_kernel "$suite" "$directory" "${found[@]}" || {
            update_lists "$suite" && mapfile -t found < <(kernel_packages "$1") && ((${#found[@]})) &&
                directory=$cache/${found[0]//[=:]/_} && fetch_kernel "$suite" "$directory" "${found[@]}"
        } || fail "${found[*]} cannot be fetched (see $cache/apt.log)"
        say "fetched ${found[0]} in $(since "$started")"
    fi
    ln -sfn "$directory" "$link"
}
