#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>

// The C++ tests are plain programs: the first check that fails ends the program with status 1.
#define CHECK(condition)                                                              \
  do {                                                                                \
    if (!(condition)) {                                                               \
      std::cerr << __FILE__ << ':' << __LINE__ << ": not so: " << #condition << '\n'; \
      std::exit(EXIT_FAILURE);                                                        \
    }                                                                                 \
  } while (false)

#define CHECK_EQ(left, right)                                                               \
  do {                                                                                      \
    const auto& check_left = (left);                                                        \
    const auto& check_right = (right);                                                      \
    if (!(check_left == check_right)) {                                                     \
      std::cerr << __FILE__ << ':' << __LINE__ << ": " << #left << " == " << #right << ": " \
                << check_left << " is not " << check_right << '\n';                         \
      std::exit(EXIT_FAILURE);                                                              \
    }                                                                                       \
  } while (false)

// Equal up to a relative difference.
#define CHECK_NEAR(left, right, relative)                                                     \
  do {                                                                                        \
    const double check_left = (left);                                                         \
    const double check_right = (right);                                                       \
    if (!(std::abs(check_left - check_right) <=                                               \
          (relative) * std::max(std::abs(check_left), std::abs(check_right)))) {              \
      std::cerr << __FILE__ << ':' << __LINE__ << ": " << #left << " near " << #right << ": " \
                << check_left << " is not near " << check_right << '\n';                      \
      std::exit(EXIT_FAILURE);                                                                \
    }                                                                                         \
  } while (false)

#define CHECK_THROWS(expression, type)                                                        \
  do {                                                                                        \
    bool check_thrown = false;                                                                \
    try {                                                                                     \
      (void)(expression);                                                                     \
    } catch (const type&) {                                                                   \
      check_thrown = true;                                                                    \
    }                                                                                         \
    if (!check_thrown) {                                                                      \
      std::cerr << __FILE__ << ':' << __LINE__ << ": did not throw: " << #expression << '\n'; \
      std::exit(EXIT_FAILURE);                                                                \
    }                                                                                         \
  } while (false)
