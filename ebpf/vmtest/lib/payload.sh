# shellcheck shell=bash
# The repository as the guest sees it: a disk of its own, mounted at the same absolute path. It holds the files that git
# knows of, or would add, and programs of the target directory that were asked for, without their debugging symbols.

# Copies one built file; a program loses its debugging symbols, which are most of it.
lay() { # lay FILE STAGE
    local to=$2/${1#"$repo"/}
    mkdir -p "$(dirname "$to")"
    if [[ $(head -c 4 "$1" | tail -c 3) == ELF && $1 != *.o ]] && command -v objcopy >/dev/null; then
        local kept=$cache/stripped${1//\//_}
        if [[ ! $kept -nt $1 ]]; then
            objcopy --strip-debug "$1" "$kept"
        fi
        ln -f "$kept" "$to"
    else
        cp -a "$1" "$to"
    fi
}

make_payload() { # make_payload IMAGE FILE…: the files lie in the repository and are not known to git
    local image=$1 stage file size started=$EPOCHREALTIME
    shift
    stage=$(mktemp -d "$cache/stage.XXXXXX")
    (cd "$repo" && git ls-files -z --cached --others --exclude-standard |
        tar --null --files-from=- --ignore-failed-read --create --file=- 2>/dev/null | tar -xf - -C "$stage")
    for file in "$@"; do
        [[ $file == "$repo"/* ]] || fail "$file is not in the repository"
        if [[ -d $file ]]; then
            mkdir -p "$stage/${file#"$repo"/}"
            cp -a "$file/." "$stage/${file#"$repo"/}"
        else
            lay "$file" "$stage"
        fi
    done
    chmod -R a+rX "$stage"
    size=$(du -sm --apparent-size "$stage" | cut -f 1)
    rm -f "$image"
    PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -m 0 -O ^has_journal -E root_owner=0:0 -d "$stage" "$image" \
        "$((size + size / 4 + 256))M" >/dev/null
    rm -rf "$stage"
    say "packed the repository, $size MB, in $(since "$started")"
}

# Builds every test of the launcher; prints `name path` of each program, the binary under test as `gait`.
build_tests() {
    local json=$cache/build.json
    (cd "$repo" && cargo test --locked --no-run -p gait --message-format=json >"$json") || fail "the tests do not build"
    jq -r 'select(.reason == "compiler-artifact" and .executable != null and .target.src_path != null)
        | (if .profile.test then (if .target.kind[0] == "lib" then "unit" else .target.name end) else "gait" end)
            + " " + .executable' "$json" | sort -u
}
