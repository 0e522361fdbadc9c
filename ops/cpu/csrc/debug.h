// Assertions of the entry points, in builds with -DMAMBA_MAE_DEBUG only (`make sanitize`): Python checks all arguments.
#pragma once

#include <cstdio>
#include <cstdlib>

#ifdef MAMBA_MAE_DEBUG
constexpr bool CHECKED = true;
#define REQUIRE(condition)                                                           \
    do {                                                                             \
        if (!(condition)) {                                                          \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);     \
            std::abort();                                                            \
        }                                                                            \
    } while (0)
#else
constexpr bool CHECKED = false;
#define REQUIRE(condition) ((void)0)
#endif
