# Warnings and sanitizers, in one interface target that every target of ours links.
add_library(festina_flags INTERFACE)
target_compile_options(festina_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Wshadow;-fvisibility=hidden>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${FESTINA_WERROR}>>:-Werror>)

if(FESTINA_SANITIZE STREQUAL "address")
  set(_festina_sanitize -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1)
elseif(FESTINA_SANITIZE STREQUAL "thread")
  # gcc's TSan does not model fences; -Wno-tsan silences its note about them (payloads are atomics).
  set(_festina_sanitize -fsanitize=thread -fno-omit-frame-pointer -g -O1)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND _festina_sanitize -Wno-tsan)
  endif()
elseif(NOT FESTINA_SANITIZE STREQUAL "")
  message(FATAL_ERROR "FESTINA_SANITIZE: expected 'address', 'thread' or empty, got '${FESTINA_SANITIZE}'")
endif()
if(_festina_sanitize)
  target_compile_options(festina_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${_festina_sanitize}>)
  target_link_options(festina_flags INTERFACE ${_festina_sanitize})
endif()
