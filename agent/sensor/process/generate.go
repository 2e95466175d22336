package process

// One object serves every little-endian architecture: nothing in it depends on registers or on structure layouts.
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package process -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter" kernel process.bpf.c
