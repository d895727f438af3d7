# What a cross build uses in place of installed libraries, none of which are for its machine: header-only fmt and JSON
# (through links, since /usr/include itself would shadow the cross compiler's own headers), GoogleTest from its sources.
# The Rust library and system libraries are absent, so text, engine and cli are left out: what is tested across is
# everything that an instruction set or a byte order could change.
set(headers ${CMAKE_BINARY_DIR}/headers)
file(MAKE_DIRECTORY ${headers})
foreach(name fmt nlohmann xxhash.h)
  if(EXISTS /usr/include/${name} AND NOT EXISTS ${headers}/${name})
    file(CREATE_LINK /usr/include/${name} ${headers}/${name} SYMBOLIC)
  endif()
endforeach()
foreach(library fmt::fmt nlohmann_json::nlohmann_json)
  add_library(${library} INTERFACE IMPORTED)
  target_include_directories(${library} INTERFACE ${headers})
endforeach()
target_compile_definitions(fmt::fmt INTERFACE FMT_HEADER_ONLY=1)
if(STOKE_TESTS)
  add_subdirectory(/usr/src/googletest ${CMAKE_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
endif()
