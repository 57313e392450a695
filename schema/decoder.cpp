// SPDX-License-Identifier: Apache-2.0
#include "schema/decoder.h"

#include "core/check.h"

#include <algorithm>
#include <limits>

namespace colo::schema {

std::string Decoder::path() const
{
    std::string result;
    for (const Step& step : path_) {
        if (step.index) {
            result += '[' + std::to_string(*step.index) + ']';
        } else {
            if (&step != &path_.front()) result += '.';
            result += step.member;
        }
    }
    return result;
}

std::string_view Decoder::name() const
{
    return path_.empty() || path_.back().index ? std::string_view("null") : path_.back().member;
}

bool Decoder::fail(std::string text)
{
    COLO_CHECK(!text.empty());
    if (text_.empty()) text_ = std::move(text);
    return false;
}

bool Decoder::fail_type(std::string_view expected)
{
    return fail("Invalid parameter type for '" + path() + "', expected: " + std::string(expected));
}

bool Decoder::fail_missing(std::string_view member)
{
    enter(member);
    return fail("Parameter '" + path() + "' is missing");
}

bool Decoder::fail_unexpected(std::string_view member)
{
    enter(member);
    return fail("Parameter '" + path() + "' is unexpected");
}

bool Decoder::fail_width(std::string_view type)
{
    return fail("Parameter '" + std::string(name()) + "' expects " + std::string(type));
}

bool Decoder::fail_enum(std::string_view value)
{
    return fail("Parameter '" + std::string(name()) + "' does not accept value '" + std::string(value) + "'");
}

const std::string* Decoder::string(const Value& value)
{
    const std::string* text = value.as_string();
    if (text == nullptr) fail_type("string");
    return text;
}

bool Decoder::integer(const Value& value, std::int64_t& out)
{
    const std::int64_t* number = value.as_int64();
    if (number == nullptr) return fail_type("integer");
    out = *number;
    return true;
}

bool Decoder::unsigned_integer(const Value& value, std::uint64_t& out)
{
    if (const std::uint64_t* large = value.as_uint64())
        out = *large;
    else if (const std::int64_t* number = value.as_int64())
        out = static_cast<std::uint64_t>(*number);
    else
        return fail("Parameter '" + path() + "' expects uint64");
    return true;
}

namespace {

template <class T>
bool decode_narrow(Decoder& decoder, const Value& value, T& out, std::string_view type)
{
    std::uint64_t wide = 0;
    if (!decoder.unsigned_integer(value, wide)) return false;
    if (wide > std::numeric_limits<T>::max()) return decoder.fail_width(type);
    out = static_cast<T>(wide);
    return true;
}

}  // namespace

bool decode(Decoder& decoder, const Value& value, bool& out)
{
    const bool* flag = value.as_bool();
    if (flag == nullptr) return decoder.fail_type("boolean");
    out = *flag;
    return true;
}

bool decode(Decoder& decoder, const Value& value, std::int64_t& out)
{
    return decoder.integer(value, out);
}
bool decode(Decoder& decoder, const Value& value, std::uint64_t& out)
{
    return decoder.unsigned_integer(value, out);
}
bool decode(Decoder& decoder, const Value& value, std::uint32_t& out)
{
    return decode_narrow(decoder, value, out, "uint32_t");
}
bool decode(Decoder& decoder, const Value& value, std::uint16_t& out)
{
    return decode_narrow(decoder, value, out, "uint16_t");
}
bool decode(Decoder& decoder, const Value& value, std::uint8_t& out)
{
    return decode_narrow(decoder, value, out, "uint8_t");
}

bool decode(Decoder& decoder, const Value& value, double& out)
{
    if (const double* real = value.as_double())
        out = *real;
    else if (const std::int64_t* number = value.as_int64())
        out = static_cast<double>(*number);
    else if (const std::uint64_t* large = value.as_uint64())
        out = static_cast<double>(*large);
    else
        return decoder.fail_type("number");
    return true;
}

bool decode(Decoder& decoder, const Value& value, std::string& out)
{
    const std::string* text = decoder.string(value);
    if (text == nullptr) return false;
    out = *text;
    return true;
}

bool decode(Decoder& decoder, const Value& value, std::nullptr_t&)
{
    return value.is_null() || decoder.fail_type("null");
}

bool decode(Decoder&, const Value& value, Value& out)
{
    out = value;
    return true;
}

bool ObjectReader::end()
{
    if (decoder_.ignores_unexpected()) return true;
    for (const Member& member : object_->members())
        if (std::ranges::find(known_, member.name) == known_.end()) return decoder_.fail_unexpected(member.name);
    return true;
}

}  // namespace colo::schema
