# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # from and for the other parts
# The project's tests in the guest: built here, packed, and run by guest/tests.

# Sets kernel, append and level to what `configurations` says.
configure() { # configure NAME
    local name kernel_of level_of append_of
    while read -r name kernel_of level_of append_of; do
        if [[ $name == "$1" ]]; then
            kernel=$kernel_of append=$append_of level=$level_of
            return
        fi
    done < <(grep -v '^#' "$here/configurations")
    fail "no configuration $1; there are: $(configurations)"
}

configurations() { sed -n 's/^\([^# ][^ ]*\) .*/\1/p' "$here/configurations" | paste -s -d ' '; }

# Builds the tests and packs them, with the binary of GAIT_TEST_BINARY instead of the one just built if it is set; sets `programs` to NAME=PATH of each.
pack_tests() { # pack_tests PAYLOAD
    local name path files=()
    programs=()
    local binary=${GAIT_TEST_BINARY:-}
    while read -r name path; do
        [[ $name != gait || -z $binary ]] || path=$(realpath -e -- "$binary") || fail "there is no $binary"
        programs+=("$name=$path")
        files+=("$path")
        # Where there is no compiler, the probes have to be there.
        [[ $name != exec ]] || "$path" --exact probes::every_probe_builds >"$cache/probes.log" 2>&1 ||
            fail "the probes do not build, see $cache/probes.log"
    done <<<"$(build_tests)"
    make_payload "$1" "${files[@]}" "$target"/tmp/probe-*
}

run_tests() { # run_tests CONFIGURATION PAYLOAD
    configure "$1"
    local slowness=1
    [[ $accelerator == kvm ]] || slowness=10
    boot "$2" "$here/guest/tests" "$1" "$level" "$slowness" "${programs[@]}"
}
