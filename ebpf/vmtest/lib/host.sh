# shellcheck shell=bash
# What every part needs of the host: where things are kept, how problems are told, the programs that must be there.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The tests know their files by absolute path, so the guest sees the repository at the very same place.
repo=$(cd "$here/../.." && pwd -P)
target=${CARGO_TARGET_DIR:-$repo/target}
cache=${VMTEST_CACHE:-$target/vmtest}

say() { printf 'vmtest: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 2
}

# Seconds with one decimal place, since the time that is given.
since() {
    local now=${EPOCHREALTIME/./}
    local tenths=$(((now - ${1/./}) / 100000))
    printf '%d.%d s' $((tenths / 10)) $((tenths % 10))
}

# Installs what is missing of `program:package`, or says what has to be installed. dpkg's own rules decide for a package
# without a program.
require() {
    local pair missing=()
    for pair in "$@"; do
        case $pair in
            /*) [[ -e ${pair%%:*} ]] || missing+=("${pair##*:}") ;;
            *) PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}") ;;
        esac
    done
    ((${#missing[@]})) || return 0
    if ((EUID == 0)) && command -v apt-get >/dev/null; then
        say "installing ${missing[*]}"
        {
            apt-get update -qq
            DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 \
                install -y -qq --no-install-recommends "${missing[@]}"
        } >"$cache/install.log" 2>&1 || {
            tail -n 20 "$cache/install.log" >&2
            fail "these packages cannot be installed: ${missing[*]}"
        }
    else
        fail "missing: ${missing[*]}; as root on Debian or Ubuntu: apt-get install ${missing[*]}"
    fi
}

# Runs a command while nobody else prepares something of the same cache.
exclusively() {
    (
        flock 9
        "$@"
    ) 9>"$cache/lock"
}

# Everything that a boot of kernel $1 needs.
prepare() {
    mkdir -p "$cache"
    exclusively require qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio mke2fs:e2fsprogs jq:jq \
        flock:util-linux dpkg-deb:dpkg git:git objcopy:binutils /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring
    exclusively prepare_kernel "$1"
    exclusively prepare_image
}
