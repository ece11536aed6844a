# ROS 2 from PyPI wheels: their imported targets name include directories of the machine that built
# them (/opt/python/...), and CMake refuses a target whose include directory does not exist.
# Drops those, and only those; without the wheels this file does nothing.

find_package(Python3 REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND "${Python3_EXECUTABLE}" -c
    "import importlib.util as u, sys; sys.exit(u.find_spec('ros_wheels_bootstrapper') is None)"
  RESULT_VARIABLE ros_wheels_missing
  OUTPUT_QUIET ERROR_QUIET)

function(ssql_ros_drop_missing_include_directories)
  get_property(targets DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}" PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT directories)
      continue()
    endif()
    set(existing "")
    foreach(directory IN LISTS directories)
      # Generator expressions are not paths yet; leave them to CMake.
      if(directory MATCHES "\\$<" OR EXISTS "${directory}")
        list(APPEND existing "${directory}")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${existing}")
  endforeach()
endfunction()

if(NOT ros_wheels_missing)
  # Deferred: rosidl_generate_interfaces imports most of the targets itself.
  cmake_language(DEFER CALL ssql_ros_drop_missing_include_directories)
endif()
