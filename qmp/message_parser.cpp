// SPDX-License-Identifier: Apache-2.0
#include "qmp/json.h"
#include "qmp/token_parser.h"

namespace colo::qmp {
namespace {

constexpr std::size_t kKeptCapacity = 1u << 20;

Error stray_error(std::string_view text)
{
    // Clients know the text as it was when a zero byte ended it.
    return make_error(Errc::invalid, "JSON parse error, stray '" + std::string(text.substr(0, text.find('\0'))) + "'");
}

}  // namespace

void MessageParser::clear()
{
    text_.clear();
    tokens_.clear();
    open_.clear();
    if (text_.capacity() > kKeptCapacity) text_.shrink_to_fit();
    if (tokens_.capacity() > kKeptCapacity / sizeof(Token)) tokens_.shrink_to_fit();
    braces_ = brackets_ = 0;
    bytes_ = 0;
}

Result<schema::Value> MessageParser::drop(Error error)
{
    clear();
    return error;
}

std::optional<Result<schema::Value>> MessageParser::next(std::string_view& input)
{
    for (;;) {
        switch (lexer_.next(input)) {
        case Lexer::Outcome::need_input: return std::nullopt;
        case Lexer::Outcome::stray: return drop(stray_error(lexer_.text()));
        case Lexer::Outcome::too_long: return drop(make_error(Errc::limit, "JSON token size limit exceeded"));
        case Lexer::Outcome::token:
            if (auto message = take_token()) return message;
            break;
        }
    }
}

void MessageParser::keep(TokenType type, std::string_view text)
{
    switch (type) {
    case TokenType::left_brace:
    case TokenType::left_bracket: open_.push_back(static_cast<std::uint32_t>(tokens_.size())); break;
    case TokenType::right_brace:
    case TokenType::right_bracket:
        if (!open_.empty()) open_.pop_back();
        break;
    case TokenType::comma:
        if (!open_.empty()) tokens_[open_.back()].count_comma();
        break;
    case TokenType::colon: break;
    default:
        text_.append(text);
        tokens_.emplace_back(type, text.size());
        return;
    }
    tokens_.emplace_back(type, 0);
}

std::optional<Result<schema::Value>> MessageParser::take_token()
{
    const TokenType type = lexer_.type();
    braces_ += type == TokenType::left_brace ? 1 : type == TokenType::right_brace ? -1 : 0;
    brackets_ += type == TokenType::left_bracket ? 1 : type == TokenType::right_bracket ? -1 : 0;

    const std::string_view text = lexer_.text();
    bytes_ += text.size();
    if (bytes_ >= kMaxTokenBytes) return drop(make_error(Errc::limit, "JSON token size limit exceeded"));
    if (tokens_.size() >= kMaxTokens) return drop(make_error(Errc::limit, "JSON token count limit exceeded"));
    if (braces_ + brackets_ > static_cast<std::int64_t>(kMaxNesting))
        return drop(make_error(Errc::limit, "JSON nesting depth limit exceeded"));

    keep(type, text);
    const bool open = (braces_ > 0 || brackets_ > 0) && braces_ >= 0 && brackets_ >= 0;
    if (open) return std::nullopt;

    Result<schema::Value> value = TokenParser(text_, tokens_).parse();
    clear();
    return value;
}

Result<schema::Value> parse_json(std::string_view text)
{
    MessageParser parser;
    std::string_view rest = text;
    auto first = parser.next(rest);
    if (!first) {  // a number or keyword at the very end shows its end only now
        rest = "\n";
        first = parser.next(rest);
        if (!first) return make_error(Errc::invalid, "JSON parse error, the text ends in the middle of a value");
    }
    if (!*first) return first->error();
    const auto more = parser.next(rest);
    std::string_view end = "\n";
    if (more || parser.held() > 0 || parser.next(end))
        return make_error(Errc::invalid, "JSON parse error, text after the value");
    return std::move(**first);
}

}  // namespace colo::qmp
