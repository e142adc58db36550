#!/bin/sh
# Compiles the kernel programs. `build.sh --check` compiles into a temporary file and compares with the committed object.
#
# Needs Debian's clang-19, llvm-19, libbpf-dev and linux-libc-dev. The bytes depend on the compiler's version and on nothing
# of the place where it runs.
set -eu
cd "$(dirname "$0")/kernel"

case "${1:-}" in
--check) object=$(mktemp) && trap 'rm -f "$object"' EXIT ;;
'') object=../gait.bpf.o ;;
*) echo "usage: build.sh [--check]" >&2 && exit 2 ;;
esac

clang-19 -O2 -g -target bpf -mcpu=v3 -D__TARGET_ARCH_x86 -std=gnu11 \
	-Wall -Wextra -Werror -Wno-unused-parameter -Wno-address-of-packed-member \
	-ffile-prefix-map="$PWD"=. -fdebug-compilation-dir=. \
	-I"/usr/include/$(uname -m)-linux-gnu" \
	-c gait.bpf.c -o "$object"
# DWARF is for debuggers; BTF stays.
llvm-strip-19 -g "$object"

if [ "${1:-}" = --check ]; then
	cmp "$object" ../gait.bpf.o || {
		echo "gait.bpf.o is not what kernel/ compiles to: run ebpf/build.sh with Debian's clang-19" >&2
		exit 1
	}
fi
