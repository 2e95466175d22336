package guard

// One object serves every little-endian architecture and every kernel: programs for hooks that a kernel lacks are left out when
// it is loaded.
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package guard -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter" guard guard.bpf.c
