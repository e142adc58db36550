# shellcheck shell=bash
# shellcheck disable=SC2154 # cache, here, repo: lib/host.sh; boot_modules: lib/kernel.sh
# One boot: the initial file system, QEMU, and what came of it.

# Settings of a boot, with what holds where nothing is said.
kernel=6.12 append='' memory=1024 cpus=2 limit=300 accelerator=auto who=root
icount=0 systemd=0 console=0 out='' extra=()

# What the processor of the guest is: everything that QEMU can offer, without what nested virtualisation trips over.
processor=max,la57=off,arch-capabilities=off

# Whether a kernel runs under KVM here. A device that opens proves little: inside of another virtual machine it may fail at
# the first instruction that has to be emulated. So a kernel boots until it misses its root; asked once per boot of the host.
kvm_works() {
    local known
    [[ -r /dev/kvm && -w /dev/kvm ]] || return 1
    known=$cache/kvm-$(</proc/sys/kernel/random/boot_id)
    if [[ ! -e $known ]]; then
        timeout -k 5 15 qemu-system-x86_64 -accel kvm -cpu "$processor" -m 512 -nodefaults -no-user-config -display none \
            -no-reboot -nic none -kernel "$cache/kernel-$kernel/vmlinuz" -append "console=ttyS0 panic=-1" \
            -chardev file,id=console,path="$known.console" -serial chardev:console </dev/null >/dev/null 2>&1 &&
            grep -q 'Unable to mount root' "$known.console" && echo yes >"$known.part" || echo no >"$known.part"
        mv "$known.part" "$known"
        rm -f "$known.console"
    fi
    [[ $(<"$known") == yes ]]
}

# Processor time of the programs that this shell has waited for, in ticks.
processor_ticks() {
    local stat
    read -r stat </proc/$$/stat
    # shellcheck disable=SC2086 # fields; the name, which may have blanks, ends at the last parenthesis
    set -- ${stat##*) }
    echo $((${14} + ${15}))
}

# Settles how instructions are run; called once, before the first boot.
choose_accelerator() {
    if ((icount)); then
        accelerator=icount
    elif [[ $accelerator == auto ]]; then
        if kvm_works; then accelerator=kvm; else accelerator=tcg; fi
    fi
}

# What the guest needs before it has a disk. $1: where to write it; the rest: the command.
make_initrd() {
    local initrd=$1 work=$1.d pair from to
    shift
    mkdir -p "$work"/{bin,proc,sys,dev}
    cp "$(command -v busybox)" "$work/bin/busybox"
    cp "$here"/guest/{init,session,vmtest.service} "$work/"
    cp -rL "$cache/kernel-$kernel/modules" "$work/modules"
    cat >"$work/settings" <<SETTINGS
BOOT_MODULES='${boot_modules[*]}'
REPO='${repo//\'/\'\\\'\'}'
WHO=$who
SYSTEMD=$systemd
OUT=$([[ $out ]] && echo 1 || echo 0)
SETTINGS
    { printf 'exec' && printf ' %q' "$@" && echo; } >"$work/command"
    for pair in ${extra[@]+"${extra[@]}"}; do
        from=$(realpath -- "${pair%%:*}") to=$from
        [[ $pair == *:* ]] && to=${pair#*:}
        mkdir -p "$work/extra/$(dirname "$to")"
        cp -aL "$from" "$work/extra/$to"
    done
    (cd "$work" && find . | cpio --quiet -o -H newc -R 0:0) >"$initrd"
    rm -rf "$work"
}

# Boots, runs the command, passes its status on: 124 out of time, 125 the guest died.
boot() { # boot PAYLOAD WORD…
    local payload=$1 work status=0 accelerated=() line started=$EPOCHREALTIME
    shift
    work=$(mktemp -d "$cache/boot.XXXXXX")
    make_initrd "$work/initrd" "$@"
    case $accelerator in
        kvm) accelerated=(-accel kvm) ;;
        # The processors take turns. With a thread for each, one may still run the int3 of a call that the kernel has patched
        # and synchronised already (QEMU translates ahead), and the guest panics where programs are attached.
        tcg) accelerated=(-accel "tcg,thread=single") ;;
        # Guest nanoseconds are instructions then; only one of them at a time.
        icount) accelerated=(-accel "tcg,thread=single" -icount "shift=0,sleep=off") cpus=1 ;;
        *) fail "accelerator $accelerator: neither auto, kvm, tcg" ;;
    esac
    line="console=ttyS0 loglevel=4 panic=-1 oops=panic mitigations=off tsc=reliable no_timer_check random.trust_cpu=on systemd.mask=tmp.mount"
    : >"$work/console"
    local follower=''
    if ((console)); then
        tail -f "$work/console" >&2 &
        follower=$!
    fi
    # Not QEMU's own standard output: with it comes standard input, and at its end QEMU drops what the guest writes.
    mkfifo "$work/output"
    cat "$work/output" &
    local printer=$!
    local before after
    before=$(processor_ticks)
    timeout --foreground -k 5 "$limit" qemu-system-x86_64 "${accelerated[@]}" -cpu "$processor" -smp "$cpus" -m "$memory" \
        -nodefaults -no-user-config -display none -no-reboot -nic none \
        -kernel "$cache/kernel-$kernel/vmlinuz" -initrd "$work/initrd" -append "$line $append" \
        -chardev file,id=console,path="$work/console" -serial chardev:console \
        -drive "file=$(image_path),if=none,id=root,format=raw,snapshot=on,cache=unsafe" -device virtio-blk-pci,drive=root \
        -drive "file=$payload,if=none,id=repo,format=raw,snapshot=on,cache=unsafe" -device virtio-blk-pci,drive=repo \
        -device virtio-serial-pci \
        -chardev file,id=out,path="$work/output" -device virtserialport,nr=1,chardev=out \
        -chardev file,id=status,path="$work/status" -device virtserialport,nr=2,chardev=status \
        -chardev file,id=left,path="$work/left.tar" -device virtserialport,nr=3,chardev=left \
        </dev/null || status=$?
    after=$(processor_ticks)
    wait "$printer"
    if [[ $follower ]]; then kill "$follower"; fi
    if ((status == 124 || status == 137)); then
        say "out of time after $limit s; the end of the console:"
        tail -n 20 "$work/console" >&2
        status=124
    elif [[ ! -s $work/status ]]; then
        say "the guest died (QEMU's status: $status); the end of the console, all of which is in $cache/console:"
        tail -n 40 "$work/console" >&2
        cp "$work/console" "$cache/console"
        status=125
    else
        status=$(<"$work/status")
    fi
    if [[ $out && -s $work/left.tar ]]; then
        mkdir -p "$out"
        tar -xf "$work/left.tar" -C "$out"
    fi
    rm -rf "$work"
    say "$(<"$cache/kernel-$kernel/release") by $accelerator${append:+, $append}: status $status after $(since "$started")," \
        "$(((after - before) / $(getconf CLK_TCK))) s of processor time"
    return "$status"
}
