# Makes Pyfhel's build of Microsoft SEAL leave out GSL, zlib and zstd, which it would download. Use as CMAKE_TOOLCHAIN_FILE.
set(SEAL_USE_MSGSL OFF CACHE BOOL "" FORCE)
set(SEAL_USE_ZLIB OFF CACHE BOOL "" FORCE)
set(SEAL_USE_ZSTD OFF CACHE BOOL "" FORCE)
set(SEAL_BUILD_DEPS OFF CACHE BOOL "" FORCE)
