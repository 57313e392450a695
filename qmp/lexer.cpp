// SPDX-License-Identifier: Apache-2.0
#include "qmp/lexer.h"

namespace colo::qmp {
namespace {

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
    if (!done_) return;
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

Lexer::Outcome Lexer::next(std::string_view& input)
{
    begin_token();
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
