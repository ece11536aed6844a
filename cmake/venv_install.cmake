# Virtual environment: Python sources, configuration and launch files as links into the work tree,
# so that an edit is live. Directories are linked whole (a new file in them needs no set-up); the
# top of ssql_ros/ is linked entry by entry because the generated ssql_ros/msg lies beside it.
# The component can be installed alone: `cmake --install build/venv/tree --component links`.
install(CODE "
  set(source \"${CMAKE_CURRENT_SOURCE_DIR}\")
  set(site \"\${CMAKE_INSTALL_PREFIX}/${PYTHON_INSTALL_DIR}\")
  set(share \"\${CMAKE_INSTALL_PREFIX}/share/${PROJECT_NAME}\")
  function(link from to)
    file(REMOVE \"\${to}\")
    file(CREATE_LINK \"\${from}\" \"\${to}\" SYMBOLIC)
  endfunction()

  file(GLOB installed \"\${site}/ssql_ros/*\")
  foreach(path IN LISTS installed)
    if(IS_SYMLINK \"\${path}\")
      file(REMOVE \"\${path}\")
    endif()
  endforeach()
  file(GLOB entries RELATIVE \"\${source}/ssql_ros\" \"\${source}/ssql_ros/*\")
  list(REMOVE_ITEM entries __pycache__)
  foreach(entry IN LISTS entries)
    link(\"\${source}/ssql_ros/\${entry}\" \"\${site}/ssql_ros/\${entry}\")
  endforeach()
  link(\"\${source}/sim\" \"\${site}/ssql_sim\")
  link(\"\${source}/config\" \"\${share}/config\")
  link(\"\${source}/launch\" \"\${share}/launch\")
  link(\"\${source}/entry_points.txt\" \"\${CMAKE_INSTALL_PREFIX}/${metadata}/entry_points.txt\")
" COMPONENT links)

# Makes every Python of the environment find ROS, whatever the shell that starts it has set.
install(FILES cmake/_ssql_ros_venv.py cmake/_ssql_ros_venv.pth DESTINATION ${PYTHON_INSTALL_DIR})
