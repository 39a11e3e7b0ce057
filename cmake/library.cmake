# libist out of the rooms' objects, and what is built on it: the command, the
# examples, the tools; then what `cmake --install` puts where.

# Objects and libraries of every room there is. A room's sources are
# $<TARGET_OBJECTS:...> expressions (ops and backend bring several), so libist
# takes the very objects that the tests link.
set(ist_objects "")
set(ist_libs "")
foreach(room base format tokenizer jinja data select ops backend peft model train eval export api)
  if(NOT TARGET room_${room})
    continue()
  endif()
  get_target_property(sources room_${room} SOURCES)
  list(APPEND ist_objects ${sources})
  get_target_property(libs room_${room} INTERFACE_LINK_LIBRARIES)
  if(libs)
    list(FILTER libs EXCLUDE REGEX "^(\\$<LINK_ONLY:)?room_")
    list(APPEND ist_libs ${libs})
  endif()
endforeach()
if(NOT ist_objects)
  return()
endif()
list(REMOVE_DUPLICATES ist_libs)

add_library(ist_static STATIC ${ist_objects})
add_library(ist_shared SHARED ${ist_objects})
foreach(kind static shared)
  set_target_properties(ist_${kind} PROPERTIES OUTPUT_NAME ist)
  target_include_directories(ist_${kind} INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
endforeach()
target_link_libraries(ist_static PUBLIC ${ist_libs})
target_link_libraries(ist_shared PRIVATE ${ist_libs})
# Before 1.0 every minor version may change the interface.
set_target_properties(ist_shared PROPERTIES VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})

# The demo's programs: they make its data and show what came out.
file(GLOB demo_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tools/demo/*.c)
if(demo_sources)
  add_library(room_demo STATIC ${demo_sources})
  target_include_directories(room_demo PUBLIC ${PROJECT_SOURCE_DIR}/tools)
  target_link_libraries(room_demo PUBLIC room_base ist_flags)
  add_executable(demo-data ${PROJECT_SOURCE_DIR}/tools/demo_data.c)
  target_link_libraries(demo-data PRIVATE room_demo)
  add_executable(demo-report ${PROJECT_SOURCE_DIR}/tools/demo_report.c)
  target_link_libraries(demo-report PRIVATE ist_flags PkgConfig::JANSSON)
endif()

# What follows needs the whole library.
if(NOT TARGET room_api)
  return()
endif()
if(NOT IST_SANITIZE)
  target_link_options(ist_shared PRIVATE -Wl,-z,defs)
endif()

file(GLOB cli_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/cli/*.c)
list(REMOVE_ITEM cli_sources ${PROJECT_SOURCE_DIR}/cli/main.c)
add_library(room_cli STATIC ${cli_sources})
target_compile_options(room_cli PRIVATE ${IST_CONVERSIONS})
target_include_directories(room_cli PUBLIC ${PROJECT_SOURCE_DIR}/cli)
target_link_libraries(room_cli PUBLIC ist_static)
add_executable(ist ${PROJECT_SOURCE_DIR}/cli/main.c)
target_link_libraries(ist PRIVATE room_cli)

# Examples see what a user of the installed library sees: ist.h and libist.so.
file(GLOB example_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/*.c)
foreach(source ${example_sources})
  get_filename_component(name ${source} NAME_WE)
  add_executable(example_${name} ${source})
  set_target_properties(example_${name} PROPERTIES OUTPUT_NAME ${name}
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/examples)
  target_compile_options(example_${name} PRIVATE
    $<TARGET_PROPERTY:ist_flags,INTERFACE_COMPILE_OPTIONS>)
  target_link_options(example_${name} PRIVATE $<TARGET_PROPERTY:ist_flags,INTERFACE_LINK_OPTIONS>)
  target_link_libraries(example_${name} PRIVATE ist_shared m)
endforeach()

# pkg-config: paths relative to the file, so that the prefix may be chosen when
# installing; what a static link needs stands in Libs.private.
file(RELATIVE_PATH PC_PREFIX /p/${CMAKE_INSTALL_LIBDIR}/pkgconfig /p)
string(REGEX REPLACE "/$" "" PC_PREFIX "${PC_PREFIX}")
set(PC_LIBS_PRIVATE "-lm")
if(DNNL_LIBRARY)
  string(PREPEND PC_LIBS_PRIVATE "-ldnnl ")
elseif(CBLAS_FOUND)
  string(PREPEND PC_LIBS_PRIVATE "-l${CBLAS_LIBRARIES} ")
endif()
if(OpenMP_C_FOUND)
  string(PREPEND PC_LIBS_PRIVATE "${OpenMP_C_FLAGS} ")
endif()
configure_file(${PROJECT_SOURCE_DIR}/cmake/ist.pc.in ${PROJECT_BINARY_DIR}/ist.pc @ONLY)

install(TARGETS ist_static ist_shared)
install(FILES ${PROJECT_SOURCE_DIR}/include/ist.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_BINARY_DIR}/ist.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(TARGETS ist)
# The command writes its own manual and completions, from its table of options.
add_custom_command(OUTPUT ist.1 ist.bash ist.zsh
  COMMAND ist --man > ist.1
  COMMAND ist --completions bash > ist.bash
  COMMAND ist --completions zsh > ist.zsh
  DEPENDS ist VERBATIM)
add_custom_target(ist_doc ALL DEPENDS ist.1 ist.bash ist.zsh)
install(FILES ${PROJECT_BINARY_DIR}/ist.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${PROJECT_BINARY_DIR}/ist.bash RENAME ist
  DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${PROJECT_BINARY_DIR}/ist.zsh RENAME _ist
  DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
