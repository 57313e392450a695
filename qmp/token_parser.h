// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "qmp/json.h"

#include <span>
#include <string>
#include <unordered_set>

namespace colo::qmp {

// Builds the value of one message from its tokens. The first mistake ends it.
class TokenParser {
public:
    TokenParser(std::string_view text, std::span<const Token> tokens) : text_(text), tokens_(tokens) {}

    Result<schema::Value> parse();

private:
    using Names = std::unordered_set<std::string>;  // of an object with many members

    // All return false after a mistake; error_ then holds the text of the first one.
    bool value(schema::Value& out);
    bool object(schema::Value& out);
    bool pair(schema::Object& out, Names& names);
    bool array(schema::Value& out);
    bool element(schema::Array& out);
    bool keyword(std::string_view text, schema::Value& out);
    bool string(std::string_view quoted, std::string& out);
    bool escape(std::string_view quoted, std::size_t& position, std::string& out);
    bool unicode_escape(std::string_view quoted, std::size_t& position, std::string& out);
    bool fail(std::string text);
    bool check_duplicate(const schema::Object& object, Names& names);

    bool take(TokenType type);  // consumes the next token if it is one
    bool peek(TokenType type) const { return position_ < tokens_.size() && tokens_[position_].type() == type; }
    std::string_view take_text();  // of the next token, which is one that has a text

    std::string_view text_;  // of the tokens that were not taken so far
    std::span<const Token> tokens_;
    std::size_t position_ = 0;
    std::string error_;
};

}  // namespace colo::qmp
