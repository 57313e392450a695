// SPDX-License-Identifier: Apache-2.0
#include "qmp/lexer.h"

#include <algorithm>
#include <array>

namespace colo::qmp {
namespace {

// What a byte can be at the start of a token, and inside a string.
enum class Kind : std::uint8_t { other, space, structural, quote, digit, minus, letter };

struct ByteClass {
    Kind kind = Kind::other;
    TokenType type = TokenType::comma;  // of a structural character
    bool in_string = false;             // makes a string longer and means nothing else
};

constexpr std::array<ByteClass, 256> make_classes()
{
    std::array<ByteClass, 256> result{};
    for (std::size_t byte = 0x20; byte < 0xfe; ++byte) result[byte].in_string = byte != '\\';
    for (const char c : {' ', '\t', '\r', '\n'}) result[static_cast<unsigned char>(c)].kind = Kind::space;
    for (const char c : {'"', '\''}) result[static_cast<unsigned char>(c)].kind = Kind::quote;
    for (std::size_t byte = '0'; byte <= '9'; ++byte) result[byte].kind = Kind::digit;
    for (std::size_t byte = 'a'; byte <= 'z'; ++byte) result[byte].kind = Kind::letter;
    result['-'].kind = Kind::minus;
    constexpr std::string_view kStructural = "{}[]:,";  // in the order of TokenType
    for (std::size_t i = 0; i < kStructural.size(); ++i) {
        ByteClass& entry = result[static_cast<unsigned char>(kStructural[i])];
        entry.kind = Kind::structural;
        entry.type = static_cast<TokenType>(i);
    }
    return result;
}

constexpr std::array<ByteClass, 256> kClasses = make_classes();

const ByteClass& class_of(char c)
{
    return kClasses[static_cast<unsigned char>(c)];
}

std::size_t digits_end(std::string_view text, std::size_t from)
{
    while (from < text.size() && class_of(text[from]).kind == Kind::digit) ++from;
    return from;
}

bool is_at(std::string_view text, std::size_t position, char one, char other)
{
    return position < text.size() && (text[position] == one || text[position] == other);
}

// Where what begins at the front of `text` ends; 0: that is for the state machine to say.
std::size_t number_end(std::string_view text, TokenType& type)
{
    type = TokenType::integer;
    const std::size_t first = text[0] == '-' ? 1 : 0;
    std::size_t end = digits_end(text, first);
    const auto part = [&](std::size_t from) {  // digits, at least one
        type = TokenType::real;
        end = digits_end(text, from);
        return end > from;
    };
    if (end == first) return 0;
    const bool zero = text[first] == '0';
    if (zero && end > first + 1) return 0;
    if (is_at(text, end, '.', '.') && !part(end + 1)) return 0;
    const bool exponent = is_at(text, end, 'e', 'E') && !(zero && type == TokenType::integer);
    if (exponent && !part(end + (is_at(text, end + 1, '+', '-') ? 2 : 1))) return 0;
    return end < text.size() ? end : 0;
}

std::size_t keyword_end(std::string_view text)
{
    const auto end = std::ranges::find_if(text, [](char c) { return class_of(c).kind != Kind::letter; });
    return end == text.end() ? 0 : static_cast<std::size_t>(end - text.begin());
}

std::size_t string_end(std::string_view text)
{
    const char quote = text[0];
    std::size_t end = 1;
    while (end < text.size() && class_of(text[end]).in_string && text[end] != quote) ++end;
    return end < text.size() && text[end] == quote ? end + 1 : 0;
}

bool is_digit(unsigned char byte)
{
    return byte >= '0' && byte <= '9';
}
bool is_structural(unsigned char byte)
{
    return byte == '{' || byte == '}' || byte == '[' || byte == ']' || byte == ':' || byte == ',';
}

}  // namespace

void Lexer::begin_token()
{
    done_ = false;
    text_.clear();
    if (text_.capacity() > (1u << 20)) text_.shrink_to_fit();
}

Lexer::Step Lexer::finish(TokenType type, Step how)
{
    type_ = type;
    state_ = State::start;
    return how;
}

Lexer::Step Lexer::start(unsigned char byte)
{
    switch (byte) {
    case ' ':
    case '\t':
    case '\r':
    case '\n': return Step::skip;
    case '{': return finish(TokenType::left_brace, Step::token);
    case '}': return finish(TokenType::right_brace, Step::token);
    case '[': return finish(TokenType::left_bracket, Step::token);
    case ']': return finish(TokenType::right_bracket, Step::token);
    case ':': return finish(TokenType::colon, Step::token);
    case ',': return finish(TokenType::comma, Step::token);
    case '"': state_ = State::double_quoted; return Step::consume;
    case '\'': state_ = State::single_quoted; return Step::consume;
    case '-': state_ = State::minus; return Step::consume;
    case '0': state_ = State::zero; return Step::consume;
    default: break;
    }
    if (is_digit(byte)) {
        state_ = State::digits;
        return Step::consume;
    }
    if (byte >= 'a' && byte <= 'z') {
        state_ = State::keyword;
        return Step::consume;
    }
    return Step::stray;
}

Lexer::Step Lexer::quoted(unsigned char byte)
{
    if (byte < 0x20 || byte >= 0xfe) return Step::stray;
    const bool single = state_ == State::single_quoted || state_ == State::single_quoted_escape;
    const State plain = single ? State::single_quoted : State::double_quoted;
    if (state_ != plain) {  // whatever is escaped
        state_ = plain;
        return Step::consume;
    }
    if (byte == '\\') {
        state_ = single ? State::single_quoted_escape : State::double_quoted_escape;
        return Step::consume;
    }
    if (byte == (single ? '\'' : '"')) return finish(TokenType::string, Step::token);
    return Step::consume;
}

Lexer::Step Lexer::number(unsigned char byte)
{
    const bool digit = is_digit(byte);
    const bool exponent = byte == 'e' || byte == 'E';
    switch (state_) {
    case State::minus:
        if (!digit) return Step::stray;
        state_ = byte == '0' ? State::zero : State::digits;
        return Step::consume;
    case State::zero:
        if (digit) return Step::stray;
        if (byte != '.') return finish(TokenType::integer, Step::token_before);  // "0e1" is 0, then a keyword
        state_ = State::point;
        return Step::consume;
    case State::digits:
        if (digit) return Step::consume;
        if (byte != '.' && !exponent) return finish(TokenType::integer, Step::token_before);
        state_ = exponent ? State::exponent : State::point;
        return Step::consume;
    case State::point:
        if (!digit) return Step::stray;
        state_ = State::fraction;
        return Step::consume;
    case State::fraction:
        if (digit) return Step::consume;
        if (!exponent) return finish(TokenType::real, Step::token_before);
        state_ = State::exponent;
        return Step::consume;
    case State::exponent:
        if (!digit && byte != '+' && byte != '-') return Step::stray;
        state_ = digit ? State::exponent_digits : State::exponent_sign;
        return Step::consume;
    case State::exponent_sign:
        if (!digit) return Step::stray;
        state_ = State::exponent_digits;
        return Step::consume;
    default:  // exponent_digits
        return digit ? Step::consume : finish(TokenType::real, Step::token_before);
    }
}

Lexer::Step Lexer::step(unsigned char byte)
{
    switch (state_) {
    case State::start: return start(byte);
    case State::skipping:
        if (!is_structural(byte) && byte < 0xfe && (byte >= 0x20 || byte == '\t')) return Step::skip;
        state_ = State::start;
        return Step::again;
    case State::double_quoted:
    case State::single_quoted:
    case State::double_quoted_escape:
    case State::single_quoted_escape: return quoted(byte);
    case State::keyword:
        return byte >= 'a' && byte <= 'z' ? Step::consume : finish(TokenType::keyword, Step::token_before);
    default: return number(byte);
    }
}

// Bytes at the front of `input` that only make a string longer; long strings deserve better than a byte at a time.
std::size_t Lexer::plain_run(std::string_view input) const
{
    if (state_ != State::double_quoted && state_ != State::single_quoted) return 0;
    const unsigned char quote = state_ == State::double_quoted ? '"' : '\'';
    const std::size_t room = kMaxTokenBytes - text_.size();
    std::size_t length = 0;
    for (; length < input.size() && length < room; ++length) {
        const auto byte = static_cast<unsigned char>(input[length]);
        if (byte < 0x20 || byte >= 0xfe || byte == '\\' || byte == quote) break;
    }
    return length;
}

// Nearly all tokens are whole, short and plain. They are found without a copy and without a state a byte; whatever else
// there is stays where it is.
bool Lexer::whole_token(std::string_view& input)
{
    const auto first = std::ranges::find_if(input, [](char c) { return class_of(c).kind != Kind::space; });
    input.remove_prefix(static_cast<std::size_t>(first - input.begin()));
    if (input.empty()) return false;
    const ByteClass& front = class_of(input.front());
    const std::string_view within = input.substr(0, kMaxTokenBytes);
    TokenType type = front.type;
    std::size_t end = 0;
    switch (front.kind) {
    case Kind::structural: end = 1; break;
    case Kind::minus:
    case Kind::digit: end = number_end(within, type); break;
    case Kind::quote: type = TokenType::string, end = string_end(within); break;
    case Kind::letter: type = TokenType::keyword, end = keyword_end(within); break;
    default: break;
    }
    if (end == 0) return false;
    type_ = type;
    view_ = input.substr(0, end);
    input.remove_prefix(end);
    return true;
}

Lexer::Outcome Lexer::next(std::string_view& input)
{
    if (done_) begin_token();
    if (state_ == State::start && whole_token(input)) return Outcome::token;
    const Outcome result = pieces(input);
    view_ = text_;
    return result;
}

Lexer::Outcome Lexer::pieces(std::string_view& input)
{
    while (!input.empty()) {
        if (const std::size_t run = plain_run(input)) {
            text_.append(input.substr(0, run));
            input.remove_prefix(run);
            continue;
        }
        const Step step = this->step(static_cast<unsigned char>(input.front()));
        if (step == Step::again) continue;
        if (step != Step::token_before) {
            if (step != Step::skip) text_.push_back(input.front());
            input.remove_prefix(1);
        }
        if (step == Step::stray) state_ = State::skipping;
        if (step == Step::stray || step == Step::token || step == Step::token_before) {
            done_ = true;
            return step == Step::stray ? Outcome::stray : Outcome::token;
        }
        if (text_.size() > kMaxTokenBytes) {
            state_ = State::start;
            done_ = true;
            return Outcome::too_long;
        }
    }
    return Outcome::need_input;
}

}  // namespace colo::qmp
