// SPDX-License-Identifier: Apache-2.0
#pragma once

// JSON text to values and back. MessageParser takes a stream (newlines mean nothing, a message ends at the bracket that
// closes it); bad input costs one error and never stops the stream.

#include "core/error.h"
#include "qmp/lexer.h"
#include "schema/value.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace colo::qmp {

inline constexpr std::size_t kMaxTokens = 2u << 20;  // of one message
inline constexpr std::size_t kMaxNesting = 1024;     // open brackets and braces

// The text of strings, numbers and keywords is collected; each token takes its part from the front.
class Token {
public:
    static constexpr unsigned kSizeBits = 28;

    Token(TokenType type, std::size_t size)
        : bits_(std::uint32_t{static_cast<std::uint8_t>(type)} << kSizeBits | static_cast<std::uint32_t>(size))
    {
    }
    TokenType type() const { return static_cast<TokenType>(bits_ >> kSizeBits); }
    // Of the text; of what opens: how many commas are directly in it, so that room can be made at once.
    std::size_t size() const { return bits_ & ((1u << kSizeBits) - 1); }
    void count_comma() { ++bits_; }

private:
    std::uint32_t bits_;
};
static_assert(kMaxTokenBytes < 1u << Token::kSizeBits && kMaxTokens < 1u << Token::kSizeBits);

class MessageParser {
public:
    // Consumes bytes from the front of `input` up to the end of one message or error; nothing if `input` is used up
    // before. Errors are Errc::invalid (or limit) with the text of the interface.
    std::optional<Result<schema::Value>> next(std::string_view& input);

    // Bytes of the unfinished message that are held.
    std::size_t held() const { return text_.size() + tokens_.size() * sizeof(Token); }

private:
    std::optional<Result<schema::Value>> take_token();
    Result<schema::Value> drop(Error error);
    void clear();
    void keep(TokenType type, std::string_view text);

    Lexer lexer_;
    std::string text_;
    std::vector<Token> tokens_;
    std::vector<std::uint32_t> open_;  // indices of what was opened and not closed so far
    std::size_t bytes_ = 0;            // of all tokens
    std::int64_t braces_ = 0;
    std::int64_t brackets_ = 0;
};

// Exactly one value with white space around it.
Result<schema::Value> parse_json(std::string_view text);

enum class Style : std::uint8_t { line, indented };

// ASCII only. Bytes that are no valid UTF-8 leave as U+FFFD. Doubles have up to 17 significant digits.
std::string to_json(const schema::Value& value, Style style = Style::line);

}  // namespace colo::qmp
