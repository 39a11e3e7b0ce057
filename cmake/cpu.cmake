# The CPU backend: its slots once, the kernels of simd/ once per instruction set.
file(GLOB cpu_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backend/cpu/*.c)
file(GLOB simd_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backend/cpu/simd/*.c)

add_library(cpu_objects OBJECT ${cpu_sources})
target_link_libraries(cpu_objects PUBLIC ist_flags)
target_sources(room_backend PRIVATE $<TARGET_OBJECTS:cpu_objects>)
target_link_libraries(room_backend PUBLIC m)
if(DNNL_INCLUDE AND DNNL_LIBRARY)
  target_include_directories(cpu_objects PRIVATE ${DNNL_INCLUDE})
  target_link_libraries(room_backend PUBLIC ${DNNL_LIBRARY})
endif()

if(CBLAS_FOUND)
  target_compile_definitions(cpu_objects PRIVATE IST_HAVE_CBLAS=1)
  target_link_libraries(cpu_objects PRIVATE PkgConfig::CBLAS)
  target_link_libraries(room_backend PUBLIC PkgConfig::CBLAS)
endif()

# Kernels may fuse a multiplication with an addition: each instruction set has its
# own rounding anyway. (An option of the sources, which stands behind -ffp-contract=off of
# ist_flags: the last one counts.) errno and floating-point traps are not used; NaN and
# Inf are.
set_source_files_properties(${simd_sources} PROPERTIES COMPILE_OPTIONS -ffp-contract=fast)
function(ist_simd_level name level)
  add_library(simd_${name} OBJECT ${simd_sources})
  target_link_libraries(simd_${name} PUBLIC ist_flags)
  target_compile_definitions(simd_${name} PRIVATE IST_SIMD_LEVEL=${level})
  target_compile_options(simd_${name} PRIVATE -O3 -fno-math-errno
    -fno-trapping-math -Wno-psabi ${ARGN})
  target_sources(room_backend PRIVATE $<TARGET_OBJECTS:simd_${name}>)
endfunction()

ist_simd_level(portable 0)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(avx512 -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq)
  ist_simd_level(avx2 1 -mavx2 -mfma -mf16c)
  ist_simd_level(avx512 2 ${avx512})
  ist_simd_level(avx512_bf16 3 ${avx512} -mavx512bf16 -mavx512vnni)
  target_compile_definitions(cpu_objects PUBLIC IST_SIMD_X86=1)
endif()
