// SPDX-License-Identifier: Apache-2.0
#pragma once

// Splits a byte stream into JSON tokens. Input may arrive in any number of pieces. Accepted beyond JSON: single-quoted
// strings and the escape \'. Contents of strings and numbers are checked by the parser, not here; here a byte is only
// wrong if no token can contain it at that place. After such a byte the lexer skips input until something that can
// start afresh: a structural character, a control character except tab, or a byte FE/FF.

#include <cstdint>
#include <string>
#include <string_view>

namespace colo::qmp {

inline constexpr std::size_t kMaxTokenBytes = 64u << 20;  // one token, and all tokens of one message together

enum class TokenType : std::uint8_t {
    left_brace,
    right_brace,
    left_bracket,
    right_bracket,
    colon,
    comma,
    integer,
    real,
    keyword,
    string,
};

class Lexer {
public:
    enum class Outcome : std::uint8_t {
        need_input,  // everything was consumed
        token,       // type() and text() are set
        stray,       // text(): the bytes of the token so far, the wrong one included
        too_long,    // the token passed kMaxTokenBytes; the next byte starts a new token
    };

    // Consumes bytes from the front of `input` up to the next outcome. A number or keyword ends before the byte that
    // shows its end; that byte is not consumed.
    Outcome next(std::string_view& input);

    TokenType type() const { return type_; }
    // Valid until the next call and as long as the input is. Strings include their quotes and escapes as they came.
    std::string_view text() const { return view_; }

private:
    enum class State : std::uint8_t {
        start,
        skipping,
        double_quoted,
        single_quoted,
        double_quoted_escape,
        single_quoted_escape,
        minus,
        zero,
        digits,
        point,
        fraction,
        exponent,
        exponent_sign,
        exponent_digits,
        keyword,
    };
    enum class Step : std::uint8_t { consume, skip, token, token_before, again, stray };

    bool whole_token(std::string_view& input);
    Outcome pieces(std::string_view& input);
    Step step(unsigned char byte);
    Step start(unsigned char byte);
    Step quoted(unsigned char byte);
    Step number(unsigned char byte);
    Step finish(TokenType type, Step how);
    std::size_t plain_run(std::string_view input) const;
    void begin_token();

    State state_ = State::start;
    TokenType type_ = TokenType::comma;
    bool done_ = true;  // text_ belongs to an outcome that was already given out
    std::string text_;  // a token that came in pieces
    std::string_view view_;
};

}  // namespace colo::qmp
