# The part of scripts/test that --long adds; sourced by it.

clang_tidy() {
  local files
  mapfile -t files < <(git ls-files 'src/*.cc' | grep -v -e _test.cc -e /isa/neon -e /isa/dotprod -e /isa/i8mm)
  printf '%s\n' "${files[@]}" | xargs -P 2 -n 4 clang-tidy --quiet -p build/fuzz
}

step "clang-tidy" clang_tidy
# watch_test's budgets are of a process without the sanitizer's own memory.
build "thread sanitizer build" tsan && suite "tests with the thread sanitizer" build/tsan -LE once -E '^watch_test$'
# Under qemu /proc/cpuinfo is this machine's, so what describes the machine cannot be tested there; and a program cannot
# start itself again, as this one death test does.
build "aarch64 build" aarch64 && GTEST_FILTER='-*ReaderTest.PushBeyondTheDepth_IsABug/*' \
  suite "tests on aarch64" build/aarch64 -LE once -E '^(cpu|profile)_test$'
step "memory contract" python3 tests/contract/contract_test.py build/release/stoke --long
step "Debian package" tests/install/check_package
