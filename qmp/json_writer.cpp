// SPDX-License-Identifier: Apache-2.0
#include "qmp/json.h"
#include "qmp/utf8.h"

#include <cmath>
#include <cstdio>

namespace colo::qmp {
namespace {

class Writer {
public:
    explicit Writer(Style style) : style_(style) {}

    void value(const schema::Value& value);
    std::string take() { return std::move(out_); }

private:
    void string(std::string_view text);
    void escape(std::int32_t code_point);
    void real(double number);
    void array(const schema::Array& array);
    void object(const schema::Object& object);
    void separator(bool first);
    void close(char bracket, bool empty);

    Style style_;
    std::size_t depth_ = 0;
    std::string out_;
};

void Writer::value(const schema::Value& value)
{
    using Type = schema::Value::Type;
    switch (value.type()) {
    case Type::null: out_ += "null"; break;
    case Type::boolean: out_ += *value.as_bool() ? "true" : "false"; break;
    case Type::int64: out_ += std::to_string(*value.as_int64()); break;
    case Type::uint64: out_ += std::to_string(*value.as_uint64()); break;
    case Type::real: real(*value.as_double()); break;
    case Type::string: string(*value.as_string()); break;
    case Type::array: array(*value.as_array()); break;
    case Type::object: object(*value.as_object()); break;
    }
}

void Writer::real(double number)
{
    if (!std::isfinite(number)) {  // came from a literal beyond the range; goes back as one
        out_ += std::isnan(number) ? "null" : number > 0 ? "1e999" : "-1e999";
        return;
    }
    char text[40];
    std::snprintf(text, sizeof text, "%.17g", number);
    out_ += text;
}

void Writer::escape(std::int32_t code_point)
{
    constexpr std::string_view kFrom = "\"\\\b\f\n\r\t";
    constexpr std::string_view kTo = "\"\\bfnrt";
    const std::size_t index =
        code_point > 0 && code_point < 0x80 ? kFrom.find(static_cast<char>(code_point)) : kFrom.npos;
    if (index != kFrom.npos) {
        out_ += '\\';
        out_ += kTo[index];
        return;
    }
    if (code_point >= 0x20 && code_point <= 0x7e) {
        out_ += static_cast<char>(code_point);
        return;
    }
    char text[16];
    if (code_point > 0xffff) {
        const std::int32_t rest = code_point - 0x10000;
        std::snprintf(text, sizeof text, "\\u%04X\\u%04X", 0xd800u + static_cast<unsigned>(rest >> 10),
                      0xdc00u + static_cast<unsigned>(rest & 0x3ff));
    } else {
        std::snprintf(text, sizeof text, "\\u%04X", static_cast<unsigned>(code_point));
    }
    out_ += text;
}

void Writer::string(std::string_view text)
{
    out_ += '"';
    for (std::size_t position = 0; position < text.size();) {
        const std::int32_t code_point = read_code_point(text, position);
        escape(code_point < 0 ? 0xfffd : code_point);
    }
    out_ += '"';
}

void Writer::separator(bool first)
{
    if (!first) out_ += style_ == Style::line ? ", " : ",";
    if (style_ == Style::indented) out_ += '\n' + std::string(depth_ * 2, ' ');
}

void Writer::close(char bracket, bool empty)
{
    --depth_;
    if (style_ == Style::indented && !empty) out_ += '\n' + std::string(depth_ * 2, ' ');
    out_ += bracket;
}

void Writer::array(const schema::Array& array)
{
    out_ += '[';
    ++depth_;
    for (std::size_t i = 0; i < array.size(); ++i) {
        separator(i == 0);
        value(array[i]);
    }
    close(']', array.empty());
}

void Writer::object(const schema::Object& object)
{
    out_ += '{';
    ++depth_;
    bool first = true;
    for (const schema::Member& member : object.members()) {
        separator(first);
        first = false;
        string(member.name);
        out_ += ": ";
        value(member.value);
    }
    close('}', object.empty());
}

}  // namespace

std::string to_json(const schema::Value& value, Style style)
{
    Writer writer(style);
    writer.value(value);
    return writer.take();
}

}  // namespace colo::qmp
