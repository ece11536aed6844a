# Virtual environment: take away what an earlier set-up installed. Links are removed, not followed.
foreach(path IN ITEMS
    "${PYTHON_INSTALL_DIR}/ssql_ros" "${PYTHON_INSTALL_DIR}/ssql_sim"
    "lib/ssql_ros" "share/ssql_ros" "include/ssql_ros")
  install(CODE "file(REMOVE_RECURSE \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${path}\")")
endforeach()
# Its metadata has the version in its name.
install(CODE "
  file(GLOB paths \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${PYTHON_INSTALL_DIR}/ssql_ros-*.egg-info\")
  if(paths)
    file(REMOVE_RECURSE \${paths})
  endif()
")
