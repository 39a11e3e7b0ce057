# src/ops, and the reference backend's slots over it, are compiled twice: in float,
# and (suffix _f64) in double.
set(slots_source ${PROJECT_SOURCE_DIR}/src/backend/reference/slots.c)
file(GLOB ops_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/ops/*.c)
foreach(real f32 f64)
  add_library(ops_${real} OBJECT ${ops_sources})
  add_library(reference_${real} OBJECT ${slots_source})
  target_link_libraries(ops_${real} PUBLIC ist_flags)
  target_link_libraries(reference_${real} PUBLIC ist_flags)
endforeach()
target_compile_definitions(ops_f64 PRIVATE IST_REAL_DOUBLE=1)
target_compile_definitions(reference_f64 PRIVATE IST_REAL_DOUBLE=1)
add_library(room_ops STATIC $<TARGET_OBJECTS:ops_f32> $<TARGET_OBJECTS:ops_f64>)
target_link_libraries(room_ops PUBLIC ist_flags m room_base)

file(GLOB backend_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backend/*.c
  ${PROJECT_SOURCE_DIR}/src/backend/reference/*.c)
list(REMOVE_ITEM backend_sources ${slots_source})
add_library(backend_objects OBJECT ${backend_sources})
target_link_libraries(backend_objects PUBLIC ist_flags)
add_library(room_backend STATIC $<TARGET_OBJECTS:backend_objects>
  $<TARGET_OBJECTS:reference_f32> $<TARGET_OBJECTS:reference_f64>)
target_link_libraries(room_backend PUBLIC ist_flags room_format room_ops room_base)

# src/backend/cpu: adds its objects to room_backend (target_sources) with their flags.
if(EXISTS ${PROJECT_SOURCE_DIR}/cmake/cpu.cmake)
  include(${PROJECT_SOURCE_DIR}/cmake/cpu.cmake)
endif()
