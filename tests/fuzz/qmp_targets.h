// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.h"

#include <string_view>

namespace colo::fuzz {

// What a control client can send. Each aborts (COLO_CHECK) if a property does not hold, and returns otherwise. The
// first byte is a choice, the rest the input proper.
void qmp_lexer(ByteView input);    // choice: size of the pieces; the same tokens and messages come out of any pieces
void qmp_session(ByteView input);  // choice: pieces, oob, negotiated; the real commands over a daemon that says yes
void qmp_decoder(ByteView input);  // choice: the command whose arguments the input is

struct QmpTarget {
    std::string_view name;  // also the folder below tests/fuzz/corpus
    void (*run)(ByteView input);
};
inline constexpr QmpTarget kQmpTargets[] = {
    {"qmp_lexer", qmp_lexer}, {"qmp_session", qmp_session}, {"qmp_decoder", qmp_decoder}};

}  // namespace colo::fuzz
