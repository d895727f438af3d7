# Cross build for 64-bit ARM on Debian's cross compiler; programs run under qemu-aarch64 (tests too). Of the libraries
# only headers are taken: fmt header-only, GoogleTest from its sources, no Rust library unless rustc has the target.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64;-L;/usr/aarch64-linux-gnu;-cpu;max)
