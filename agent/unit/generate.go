package unit

// One object serves every little-endian architecture: nothing in it depends on registers or on structure layouts.
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package unit -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter" asked asked.bpf.c
