#!/bin/sh
# Compiles the kernel programs. `build.sh --check` compiles them and compares with the committed object.
#
# Needs Debian's clang-19, llvm-19, libbpf-dev and linux-libc-dev. The bytes depend on the versions of these and on nothing
# of the place where the compiler runs.
set -eu
cd "$(dirname "$0")/kernel"

object=$(mktemp)
trap 'rm -f "$object"' EXIT

clang-19 -O2 -g -target bpf -mcpu=v3 -D__TARGET_ARCH_x86 -std=gnu11 \
	-Wall -Wextra -Werror -Wno-unused-parameter \
	-ffile-prefix-map="$PWD"=. -fdebug-compilation-dir=. \
	-I/usr/include/x86_64-linux-gnu \
	-c gait.bpf.c -o "$object"
# DWARF is for debuggers; BTF stays.
llvm-strip-19 -g "$object"

case "${1:-}" in
--check)
	cmp "$object" ../gait.bpf.o || {
		echo "gait.bpf.o is not what kernel/ compiles to: run ebpf/build.sh with Debian's clang-19" >&2
		exit 1
	}
	;;
'') install -m 644 "$object" ../gait.bpf.o ;;
*) echo "usage: build.sh [--check]" >&2 && exit 2 ;;
esac
