// SPDX-License-Identifier: Apache-2.0
#include "qmp/token_parser.h"

#include "qmp/utf8.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

namespace colo::qmp {
namespace {

constexpr std::size_t kMaxShown = 1023;  // of what is wrong; clients know this bound

double real_of(std::string_view text)
{
    double result = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), result);
    if (status == std::errc()) return result;
    return std::strtod(std::string(text).c_str(), nullptr);  // out of range: infinite or zero
}

schema::Value integer_of(std::string_view text)
{
    std::int64_t number = 0;
    const char* end = text.data() + text.size();
    if (std::from_chars(text.data(), end, number).ec == std::errc()) return number;
    std::uint64_t large = 0;
    if (text.front() != '-' && std::from_chars(text.data(), end, large).ec == std::errc()) return large;
    return real_of(text);
}

// ASCII without escapes from `position` to the closing quote: most of what is sent, and it is taken as it is.
std::size_t plain_run(std::string_view quoted, std::size_t position)
{
    const auto plain = [](char c) { return static_cast<signed char>(c) > 0 && c != '\\'; };
    const auto begin = quoted.begin() + static_cast<std::ptrdiff_t>(position);
    return static_cast<std::size_t>(std::find_if_not(begin, quoted.end() - 1, plain) - begin);
}

// Four hexadecimal digits at `position`, or -1.
std::int32_t hex4(std::string_view text, std::size_t position)
{
    if (text.size() < position + 4) return -1;
    std::int32_t result = 0;
    for (const char c : text.substr(position, 4)) {
        std::int32_t digit = 0;
        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if (c >= 'a' && c <= 'f')
            digit = c - 'a' + 10;
        else if (c >= 'A' && c <= 'F')
            digit = c - 'A' + 10;
        else
            return -1;
        result = result * 16 + digit;
    }
    return result;
}

}  // namespace

bool TokenParser::fail(std::string text)
{
    if (error_.empty()) error_ = "JSON parse error, " + text.substr(0, kMaxShown);
    return false;
}

bool TokenParser::take(TokenType type)
{
    if (!peek(type)) return false;
    ++position_;
    return true;
}

Result<schema::Value> TokenParser::parse()
{
    schema::Value result;
    if (value(result)) return result;
    return make_error(Errc::invalid, error_);
}

std::string_view TokenParser::take_text()
{
    const std::size_t size = tokens_[position_++].size();
    const std::string_view result = text_.substr(0, size);
    text_.remove_prefix(size);
    return result;
}

bool TokenParser::value(schema::Value& out)
{
    if (peek(TokenType::left_brace)) return object(out);
    if (peek(TokenType::left_bracket)) return array(out);
    if (position_ >= tokens_.size()) return fail("expecting value");
    switch (tokens_[position_].type()) {
    case TokenType::string: {
        std::string content;
        if (!string(take_text(), content)) return false;
        out = std::move(content);
        return true;
    }
    case TokenType::integer: out = integer_of(take_text()); return true;
    case TokenType::real: out = real_of(take_text()); return true;
    case TokenType::keyword: return keyword(take_text(), out);
    default: return fail("expecting value");
    }
}

bool TokenParser::keyword(std::string_view text, schema::Value& out)
{
    if (text == "true" || text == "false")
        out = text == "true";
    else if (text == "null")
        out = nullptr;
    else
        return fail("invalid keyword '" + std::string(text) + "'");
    return true;
}

bool TokenParser::object(schema::Value& out)
{
    const std::size_t commas = tokens_[position_++].size();
    schema::Object result;
    Names names;
    if (!take(TokenType::right_brace)) {
        result.reserve(commas + 1);
        if (!pair(result, names)) return false;
        while (!take(TokenType::right_brace)) {
            if (!take(TokenType::comma)) return fail("expected separator in dict");
            if (!pair(result, names)) return false;
        }
    }
    out = std::move(result);
    return true;
}

bool TokenParser::pair(schema::Object& out, Names& names)
{
    if (!peek(TokenType::string)) {
        schema::Value name;  // what is wrong in it comes first
        return value(name) && fail("key is not a string in object");
    }
    std::string name;
    if (!string(take_text(), name)) return false;
    if (!take(TokenType::colon)) return fail("missing : in object pair");
    if (!value(out.append(std::move(name), {}))) return false;
    return check_duplicate(out, names);
}

// Only the newest member can be new trouble. Large objects have their names in a set, so that a hostile one does not
// cost quadratic time.
bool TokenParser::check_duplicate(const schema::Object& object, Names& names)
{
    const auto& members = object.members();
    constexpr std::size_t kLinear = 64;
    if (members.size() <= kLinear) {
        for (std::size_t i = 0; i + 1 < members.size(); ++i)
            if (members[i].name == members.back().name) return fail("duplicate key");
        return true;
    }
    for (std::size_t i = names.size(); i < members.size(); ++i)
        if (!names.insert(members[i].name).second) return fail("duplicate key");
    return true;
}

bool TokenParser::array(schema::Value& out)
{
    const std::size_t commas = tokens_[position_++].size();
    schema::Array result;
    if (!take(TokenType::right_bracket)) {
        result.reserve(commas + 1);
        if (!element(result)) return false;
        while (!take(TokenType::right_bracket)) {
            if (!take(TokenType::comma)) return fail("expected separator in list");
            if (!element(result)) return false;
        }
    }
    out = std::move(result);
    return true;
}

// Long arrays are made of numbers or strings; these are made in their place.
bool TokenParser::element(schema::Array& out)
{
    if (peek(TokenType::integer)) {
        out.push_back(integer_of(take_text()));
        return true;
    }
    return value(out.emplace_back());
}

bool TokenParser::string(std::string_view quoted, std::string& out)
{
    out.reserve(quoted.size() - 2);
    for (std::size_t position = 1; position < quoted.size() - 1;) {
        if (const std::size_t run = plain_run(quoted, position)) {
            out.append(quoted, position, run);
            position += run;
            continue;
        }
        if (quoted[position] == '\\') {
            if (!escape(quoted, position, out)) return false;
            continue;
        }
        const std::int32_t code_point = read_code_point(quoted, position);
        if (code_point < 0) return fail("invalid UTF-8 sequence in string");
        append_code_point(out, code_point);
    }
    return true;
}

bool TokenParser::escape(std::string_view quoted, std::size_t& position, std::string& out)
{
    const char kind = quoted[position + 1];  // the lexer never ends a string behind a backslash
    if (kind == 'u') return unicode_escape(quoted, position, out);
    constexpr std::string_view kFrom = "\"'\\/bfnrt";
    constexpr std::string_view kTo = "\"'\\/\b\f\n\r\t";
    const std::size_t index = kFrom.find(kind);
    if (index == std::string_view::npos) return fail("invalid escape sequence in string");
    out.push_back(kTo[index]);
    position += 2;
    return true;
}

bool TokenParser::unicode_escape(std::string_view quoted, std::size_t& position, std::string& out)
{
    const std::size_t start = position;
    std::int32_t code_point = hex4(quoted, position + 2);  // -1, if the closing quote comes too soon
    position = std::min(position + 6, quoted.size());

    const bool high = code_point >= 0xd800 && code_point <= 0xdbff;
    if (high && quoted.substr(position, 2) == "\\u") {
        const std::int32_t low = hex4(quoted, position + 2);
        if (low >= 0xdc00 && low <= 0xdfff) {
            code_point = 0x10000 + ((code_point & 0x3ff) << 10) + (low & 0x3ff);
            position += 6;
        }
    }
    if (!is_character(code_point))
        return fail(std::string(quoted.substr(start, position - start)) + " is not a valid Unicode character");
    append_code_point(out, code_point);
    return true;
}

}  // namespace colo::qmp
