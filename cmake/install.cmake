# What `cmake --install` puts where, and the Debian packages that cpack makes of it. Two components:
#   program  the stoke command                                    -> package stoke
#   dev      libstoke.a, the public headers, the CMake package, stoke.pc    -> package libstoke-dev
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# A cross build has no Rust library, and so neither engine nor program: nothing to install.
if(NOT TARGET stoke_text OR NOT TARGET stoke_program)
  return()
endif()
get_target_property(STOKE_TEXT_ARCHIVE stoke_text IMPORTED_LOCATION)

install(TARGETS stoke_program RUNTIME COMPONENT program)
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program)

install(TARGETS stoke ARCHIVE COMPONENT dev)
install(FILES ${STOKE_TEXT_ARCHIVE} DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT dev)
install(DIRECTORY include/stoke DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev FILES_MATCHING PATTERN "*.h")

# The package is written by hand rather than exported: an export would name every private target of this build.
get_filename_component(STOKE_TEXT_ARCHIVE_NAME ${STOKE_TEXT_ARCHIVE} NAME)
# What a C++ program gets from its linker and one in C does not.
set(STOKE_CXX_LIBRARIES ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
list(REMOVE_ITEM STOKE_CXX_LIBRARIES ${CMAKE_C_IMPLICIT_LINK_LIBRARIES})
list(REMOVE_DUPLICATES STOKE_CXX_LIBRARIES)
set(STOKE_LINK_LIBRARIES "xxhash;Threads::Threads;${CMAKE_DL_LIBS};${STOKE_CXX_LIBRARIES}")
set(STOKE_PC_REQUIRES "fmt libxxhash")
if(LIBURING_FOUND)
  list(APPEND STOKE_LINK_LIBRARIES uring)
  string(APPEND STOKE_PC_REQUIRES " liburing")
endif()
list(TRANSFORM STOKE_CXX_LIBRARIES PREPEND -l OUTPUT_VARIABLE STOKE_PC_LIBRARIES)
list(JOIN STOKE_PC_LIBRARIES " " STOKE_PC_LIBRARIES)
string(PREPEND STOKE_PC_LIBRARIES "-pthread -ldl ")
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/stoke)
configure_package_config_file(cmake/stokeConfig.cmake.in ${CMAKE_BINARY_DIR}/stokeConfig.cmake
                              INSTALL_DESTINATION ${package_dir}
                              PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/stokeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/stokeConfig.cmake ${CMAKE_BINARY_DIR}/stokeConfigVersion.cmake
        DESTINATION ${package_dir} COMPONENT dev)
file(RELATIVE_PATH STOKE_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" STOKE_PC_PREFIX "${STOKE_PC_PREFIX}")
configure_file(cmake/stoke.pc.in ${CMAKE_BINARY_DIR}/stoke.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/stoke.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT dev)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME stoke)
set(CPACK_PACKAGE_VENDOR stoke)
set(CPACK_PACKAGE_CONTACT "stoke maintainers <maintainers@stoke.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "language models on your own processor")
set(CPACK_PACKAGE_DESCRIPTION "Runs GGUF files and Hugging Face folders on the CPU, exact and fast.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL program dev)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION utils)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME stoke)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_DEV_PACKAGE_NAME libstoke-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "libfmt-dev, libxxhash-dev, liburing-dev")
include(CPack)
